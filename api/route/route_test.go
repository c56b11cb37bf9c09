package route

import (
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/containerd/errdefs"
	"github.com/google/go-cmp/cmp"
)

func TestDecode(t *testing.T) {
	for name, tc := range map[string]struct{ ct, body, want string }{
		"fine":        {"application/json", `{"a":1}`, ""},
		"charset":     {"application/json; charset=utf-8", `{"a":1}`, ""},
		"no body":     {"", "", ""},
		"other type":  {"text/plain", `{}`, "unsupported Content-Type header (text/plain): must be 'application/json'"},
		"no type":     {"", `{}`, "malformed Content-Type header ()"},
		"truncated":   {"application/json", `{"a":`, "invalid JSON: unexpected EOF"},
		"blank":       {"application/json", ` `, "invalid JSON: got EOF while reading request body"},
		"trailing":    {"application/json", `{"a":1}{}`, "unexpected content after JSON"},
		"wrong type":  {"application/json", `{"a":"x"}`, "invalid JSON: json: cannot unmarshal string"},
		"over limits": {"application/json", `{"b":"` + strings.Repeat("x", maxJSON) + `"}`, "request body exceeds"},
	} {
		t.Run(name, func(t *testing.T) {
			r := httptest.NewRequest("POST", "/", strings.NewReader(tc.body))
			r.Header.Set("Content-Type", tc.ct)
			var v struct{ A int }
			err := Decode(r, &v)
			if tc.want == "" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || !errdefs.IsInvalidArgument(err) {
				t.Errorf("err = %v, want …%s…", err, tc.want)
			}
		})
	}
}

func TestCompareVersions(t *testing.T) {
	for _, tc := range []struct {
		a, b string
		want int
	}{{"1.9", "1.24", -1}, {"1.56", "1.56", 0}, {"1.41", "1.4", 1}, {"2", "1.99", 1}, {"1.24", "", 1}, {"1", "1.0", 0}} {
		if got := CompareVersions(tc.a, tc.b); got != tc.want {
			t.Errorf("%s and %s: %d", tc.a, tc.b, got)
		}
	}
}

func TestFilters(t *testing.T) {
	for _, text := range []string{`{"label":["a=b","c"],"x":["1"]}`, `{"label":{"a=b":true,"c":true,"d":false},"x":{"1":true}}`} {
		f, err := DecodeFilters(text)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(Filters{"label": {"a=b", "c"}, "x": {"1"}}, f); diff != "" {
			t.Error(diff)
		}
		if !f.Labels("label", map[string]string{"a": "b", "c": "z"}) || f.Labels("label", map[string]string{"a": "c", "c": ""}) {
			t.Error("labels do not match as they should")
		}
	}
	for _, text := range []string{`[]`, `{"a":1}`, `{`, `"x"`} {
		if _, err := DecodeFilters(text); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%s: %v", text, err)
		}
	}
	r := httptest.NewRequest("GET", `/?filters={"nope":["x"]}`, nil)
	if _, err := ParseFilters(r, "label"); err == nil || !strings.Contains(err.Error(), "invalid filter 'nope'") {
		t.Errorf("unknown filter: %v", err)
	}
}

func TestParseTime(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for text, want := range map[string]time.Time{
		"":                               {},
		"0":                              time.Unix(0, 0),
		"1700000000":                     now,
		"1700000000.5":                   now.Add(500 * time.Millisecond),
		"1700000000.000000001":           now.Add(1),
		"10m":                            now.Add(-10 * time.Minute),
		"2023-11-14T22:13:20Z":           now,
		"2023-11-14T22:13:20.123456789Z": now.Add(123456789),
		"2023-11-14T23:13:20+01:00":      now,
	} {
		got, err := ParseTime(text, now)
		if err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"yesterday", "1.x", "12.5.3"} {
		if _, err := ParseTime(text, now); !errdefs.IsInvalidArgument(err) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
