package coldjson

import (
	"encoding/json"
	"reflect"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// document has what a specification lacks.
type document struct {
	Spec    *specs.Spec       `json:"spec"`
	Time    time.Time         `json:"time"`
	Zero    time.Time         `json:"zero,omitzero"`
	Any     any               `json:"any,omitempty"`
	Raw     json.RawMessage   `json:"raw,omitempty"`
	Bytes   []byte            `json:"bytes"`
	Labels  map[string]string `json:"labels"`
	Float   float64           `json:"float"`
	Quoted  int               `json:"quoted,string"`
	Array   [2]int            `json:"array"`
	Hidden  string            `json:"-"`
	NoTag   int8
	private int
}

// Embedded is in a document by its pointer.
type Embedded struct {
	Inside string            `json:"inside,omitempty"`
	Times  map[time.Time]int `json:"times,omitempty"`
}

// plainDocument is one that encoding/json is not needed for.
type plainDocument struct {
	*Embedded
	Spec    *specs.Spec       `json:"spec"`
	Time    time.Time         `json:"time"`
	Labels  map[string]string `json:"labels"`
	Nothing *int              `json:"nothing"`
	Float   float64           `json:"float"`
	NoTag   int8
}

// fill sets everything below v, so that no member goes untested.
func fill(v reflect.Value, n *int) {
	*n++
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fill(v.Elem(), n)
	case reflect.Struct:
		if v.Type() == reflect.TypeFor[time.Time]() {
			v.Set(reflect.ValueOf(time.Unix(1700000000, int64(*n)).UTC()))
			return
		}
		for i := range v.NumField() {
			if v.Field(i).CanSet() || v.Type().Field(i).Anonymous {
				fill(v.Field(i), n)
			}
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if v.Type().Key().Kind() != reflect.String {
			return
		}
		for _, key := range []string{"b", "a", "<ü>"} {
			elem := reflect.New(v.Type().Elem()).Elem()
			fill(elem, n)
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), elem)
		}
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 2, 2))
		fill(v.Index(0), n)
		fill(v.Index(1), n)
	case reflect.String:
		v.SetString([]string{"plain", "quo\"te\\", "<&>", "ünï\u2028", "\x01\xff"}[*n%5])
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		v.SetInt(-int64(*n % 100))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(uint64(*n % 100))
	case reflect.Float64:
		v.SetFloat(1.5e30)
	}
}

func TestSameAsEncodingJSON(t *testing.T) {
	for name, v := range map[string]any{
		"empty": &document{}, "full": &document{}, "plain": &plainDocument{}, "plain, empty": &plainDocument{},
		"spec": &specs.Spec{}, "state": &specs.State{}, "features": &map[string]any{"x": []int{1}},
	} {
		t.Run(name, func(t *testing.T) {
			if name != "empty" && name != "plain, empty" && name != "features" {
				n := 0
				fill(reflect.ValueOf(v).Elem(), &n)
			}
			if d, ok := v.(*document); ok && d.Spec != nil {
				d.Any, d.Raw = map[string]any{"a": 1.0}, json.RawMessage(`{"x":[1,2]}`)
			}
			want, err := json.Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			got, err := Marshal(v)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("encoded\n%s\nwant\n%s", got, want)
			}
			a, b := reflect.New(reflect.TypeOf(v).Elem()), reflect.New(reflect.TypeOf(v).Elem())
			if err := errorsOf(json.Unmarshal(want, a.Interface()), Unmarshal(want, b.Interface())); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(a.Interface(), b.Interface(), cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func errorsOf(a, b error) error {
	if a != nil {
		return a
	}
	return b
}

// TestAlone: the common documents do without encoding/json's tables.
func TestAlone(t *testing.T) {
	v := &plainDocument{}
	n := 0
	fill(reflect.ValueOf(v).Elem(), &n)
	e := encoder{types: types{}}
	if !e.value(reflect.ValueOf(v)) {
		t.Fatal("encoding was left to encoding/json")
	}
	d := decoder{data: e.out, types: types{}}
	if !d.value(reflect.ValueOf(&plainDocument{}).Elem()) {
		t.Error("decoding was left to encoding/json at ", string(d.data[:d.at]))
	}
}

var corpus = []string{
	`{}`, ` { "spec" : { "HOSTNAME" : "x" , "process":{"args":["a","\u00e9\n"],"terminal":true} } } `,
	`{"spec":{"hostname":1}}`, `{"spec":{"process":{"user":{"uid":-1}}}}`, `{"spec":{"process":{"user":{"uid":1.0}}}}`,
	`{"spec":{"process":{"user":{"uid":4294967296}}}}`, `{"spec":null,"unknown":[{"a":"}\"]"}],"labels":{"a":null}}`,
	`{"spec":{"linux":{"resources":{"blockIO":{"weightDevice":[{"major":1,"minor":2,"weight":3}]}}}}}`,
	`{"labels":{"a":"b"},"labels":{"c":"d"}}`, `{"spec":[]}`, `{"time":"nonsense"}`, `{"time":"2020-01-01T00:00:00Z"}`,
	`{"float":1e400}`, `{"NoTag":300}`, `{"notag":3}`, `{"a":1,}`, `{"a" 1}`, `[1]`, `"x"`, `null`, ``, `{"spec":{"mounts":[{"options":null},null]}}`,
	`{"inside":"x","times":{"2020-01-01T00:00:00Z":1}}`, `{"times":{"x":1}}`,
	`{"any":{"x":[1]},"raw": [1, 2],"bytes":"aGk=","quoted":"12","array":[1,2,3]}`, `{"labels":{"\ud800":"\ud83d\ude00"}}`,
}

func same(t *testing.T, data []byte, a, b any) {
	t.Helper()
	want, got := json.Unmarshal(data, a), Unmarshal(data, b)
	if (want == nil) != (got == nil) || want != nil && want.Error() != got.Error() {
		t.Fatalf("%s: error %v, want %v", data, got, want)
	}
	if want != nil {
		return
	}
	if diff := cmp.Diff(a, b, cmp.Exporter(func(reflect.Type) bool { return true })); diff != "" {
		t.Errorf("%s: %s", data, diff)
	}
}

func FuzzUnmarshal(f *testing.F) {
	for _, s := range corpus {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		same(t, data, &plainDocument{}, &plainDocument{})
		same(t, data, &document{}, &document{})
	})
}
