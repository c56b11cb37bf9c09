package passwd

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const passwdFile = `# a comment
root:x:0:0:root:/root:/bin/sh
app:x:1000:1001:App:/home/app:/bin/sh
1000:x:7:7::/seven:
broken
:x:5:5::/:
huge:x:99999999999999999999:0::/:
minus:x:-1:0::/:
wrap:x:4294967296:0::/:
nohome:x:8:8
+nis::::::
`

const groupFile = `root:x:0:
app:x:1001:
staff:x:50:app,root
video:x:44:other,app
1001:x:60:
huge:x:4294967296:app
`

func files(passwd, group string) Open {
	return func(name string) (io.ReadCloser, error) {
		switch {
		case name == "/etc/passwd" && passwd != "":
			return io.NopCloser(strings.NewReader(passwd)), nil
		case name == "/etc/group" && group != "":
			return io.NopCloser(strings.NewReader(group)), nil
		}
		return nil, nil
	}
}

func TestResolve(t *testing.T) {
	for _, tt := range []struct {
		user   string
		groups []string
		want   User
		err    string
	}{
		{user: "", want: User{0, 0, []uint32{50}, "/root"}},
		{user: "root", want: User{0, 0, []uint32{50}, "/root"}},
		{user: "0", want: User{0, 0, []uint32{50}, "/root"}},
		{user: "app", want: User{1000, 1001, []uint32{50, 44}, "/home/app"}},
		{user: "1000", want: User{1000, 1001, []uint32{50, 44}, "/home/app"}},
		{user: "7", want: User{7, 7, nil, "/seven"}},
		{user: "app:", want: User{1000, 1001, []uint32{50, 44}, "/home/app"}},
		{user: "app:staff", want: User{1000, 50, nil, "/home/app"}},
		{user: "app:99", want: User{1000, 99, nil, "/home/app"}},
		{user: "4242", want: User{4242, 0, nil, "/"}},
		{user: "4242:77", want: User{4242, 77, nil, "/"}},
		{user: ":staff", want: User{0, 50, nil, "/root"}},
		{user: "nohome", want: User{8, 8, nil, "/"}},
		{user: "app", groups: []string{"video", "44", "9"}, want: User{1000, 1001, []uint32{44, 9, 50}, "/home/app"}},
		{user: "4242", groups: []string{"staff"}, want: User{4242, 0, []uint32{50}, "/"}},
		{user: "foo", err: "unable to find user foo: no matching entries in passwd file"},
		{user: "app:foo", err: "unable to find group foo: no matching entries in group file"},
		{user: "app", groups: []string{"foo"}, err: "unable to find group foo: no matching entries in group file"},
		{user: "huge", err: "unable to find user huge: no matching entries in passwd file"},
		{user: "minus", err: "unable to find user minus: no matching entries in passwd file"},
		{user: "wrap", err: "unable to find user wrap: no matching entries in passwd file"},
		{user: "-1", err: "uids and gids must be in range 0-2147483647"},
		{user: "2147483648", err: "uids and gids must be in range 0-2147483647"},
		{user: "4294967296", err: "uids and gids must be in range 0-2147483647"},
		{user: "99999999999999999999", err: "uids and gids must be in range 0-2147483647"},
		{user: "0:4294967295", err: "uids and gids must be in range 0-2147483647"},
		{user: "0x10", err: "unable to find user 0x10: no matching entries in passwd file"},
		{user: " 0", err: "unable to find user  0: no matching entries in passwd file"},
	} {
		got, err := Resolve(files(passwdFile, groupFile), tt.user, tt.groups)
		if tt.err != "" {
			var e *Error
			if !errors.As(err, &e) || err.Error() != tt.err {
				t.Errorf("%q: got %v, want %s", tt.user, err, tt.err)
			}
			continue
		}
		if err != nil {
			t.Errorf("%q: %v", tt.user, err)
			continue
		}
		if !slices.Contains(tt.want.GIDs, tt.want.GID) {
			tt.want.GIDs = slices.Insert(tt.want.GIDs, 0, tt.want.GID) // the primary group always counts
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%q %q (-want +got):\n%s", tt.user, tt.groups, diff)
		}
	}
}

func TestNoFiles(t *testing.T) {
	got, err := Resolve(files("", ""), "", nil)
	if err != nil || got.UID != 0 || got.Home != "/" {
		t.Error(got, err)
	}
	if _, err := Resolve(files("", ""), "root", nil); err == nil {
		t.Error("root found without a file")
	}
}

// TestNumberIsNoName: an entry named like a number must not choose the ids of
// who asked for that number.
func TestNumberIsNoName(t *testing.T) {
	open := func(name string) (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(map[string]string{
			"/etc/passwd": "1000:x:0:0::/root:\n12:x:0:0::/:\ntwelve:x:12:13::/home:\n",
			"/etc/group":  "50:x:0:\n",
		}[name])), nil
	}
	for written, want := range map[string]User{
		"1000":    {UID: 1000, GIDs: []uint32{0}, Home: "/"},
		"12":      {UID: 12, GID: 13, GIDs: []uint32{13}, Home: "/home"},
		"1000:50": {UID: 1000, GID: 50, GIDs: []uint32{50}, Home: "/"},
	} {
		got, err := Resolve(open, written, nil)
		if err != nil || !cmp.Equal(got, want) {
			t.Errorf("%s: got %+v, %v; want %+v", written, got, err, want)
		}
	}
}

func TestHostileFiles(t *testing.T) {
	for name, text := range map[string]string{
		"long line": strings.Repeat("x", maxLine+10) + "\n" + passwdFile,
		"long file": strings.Repeat("a:x:1:1::/:\n", maxFile/12+10),
	} {
		if _, err := Resolve(files(text, groupFile), "nobody", nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	// A user in more groups than the kernel takes.
	var b strings.Builder
	for i := range maxSupps + 100 {
		b.WriteString("g:x:" + strings.Repeat("0", 3) + itoa(i) + ":app\n")
	}
	got, err := Resolve(files(passwdFile, b.String()), "app", nil)
	if err != nil || len(got.GIDs) > maxSupps {
		t.Error(len(got.GIDs), err)
	}
}

func itoa(n int) string {
	if n == 0 {
		return "0"
	}
	s := ""
	for ; n > 0; n /= 10 {
		s = string(rune('0'+n%10)) + s
	}
	return s
}

func FuzzResolve(f *testing.F) {
	f.Add(passwdFile, groupFile, "app:staff", "video")
	f.Add(passwdFile, groupFile, "1000", "-1")
	f.Fuzz(func(t *testing.T, passwd, group, user, extra string) {
		u, err := Resolve(files(passwd, group), user, []string{extra})
		if err == nil && (u.UID > maxID || u.GID > maxID) {
			t.Errorf("%q gave %+v", user, u)
		}
	})
}
