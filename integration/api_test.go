package integration

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/wherry-engine/wherry/internal/testenv"
)

// pages makes a connection for each request. A client that keeps connections
// also keeps one that came too late for a request that timed out, on which nothing
// is ever sent; a server that is to end gracefully waits for it.
var pages = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}

// httpGet fetches a page, with retries while the server starts.
func httpGet(t *testing.T, addr string) string {
	t.Helper()
	var body string
	testenv.Eventually(t, "a page from "+addr, func() bool {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := pages.Do(req)
		if err != nil {
			return false
		}
		defer resp.Body.Close()
		data, err := io.ReadAll(resp.Body)
		body = string(data)
		return err == nil
	})
	return body
}

// TestBadRequests sends what a broken or hostile client might.
func TestBadRequests(t *testing.T) {
	t.Parallel()
	d := shared(t)
	image := d.Image(t, "busybox")
	n := name(t)
	d.Docker(t).OK(t, "create", "--name", n, image, "true")
	t.Cleanup(func() { d.Docker(t).Try(t, "rm", "-f", n) })
	tests := map[string]struct {
		status             int
		method, path, body string
		message            string
	}{
		"unknown endpoint":         {404, "GET", "/v1.41/nosuch", "", "page not found"},
		"wrong method":             {404, "PUT", "/v1.41/containers/json", "", ""},
		"version too old":          {400, "GET", "/v1.10/info", "", "too old"},
		"version too new":          {400, "GET", "/v9.99/info", "", "too new"},
		"unknown container":        {404, "GET", "/containers/nosuch/json", "", "No such container: nosuch"},
		"unknown image":            {404, "GET", "/images/nosuch/json", "", "No such image: nosuch"},
		"unknown network":          {404, "GET", "/networks/nosuch", "", "network nosuch not found"},
		"unknown volume":           {404, "GET", "/volumes/nosuch", "", "no such volume"},
		"unknown exec":             {404, "GET", "/exec/nosuch/json", "", "No such exec instance"},
		"create without image":     {404, "POST", "/containers/create", `{"Image":"nosuch:latest"}`, "No such image"},
		"create, broken JSON":      {400, "POST", "/containers/create", `{"Image":`, ""},
		"create, wrong type":       {400, "POST", "/containers/create", `{"Image":17}`, ""},
		"create, no body":          {400, "POST", "/containers/create", "", ""},
		"create, trailing":         {400, "POST", "/containers/create", `{"Image":"busybox"} x`, ""},
		"create, bad name":         {400, "POST", "/containers/create?name=bad%20name", `{"Image":"busybox"}`, "Invalid container name"},
		"create, name taken":       {409, "POST", "/containers/create?name=" + n, `{"Image":"busybox"}`, "already in use"},
		"create, little memory":    {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"Memory":1000}}`, "6MB"},
		"create, many cpus":        {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"NanoCpus":999000000000}}`, "CPUs"},
		"create, bad capability":   {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"CapAdd":["CAP_NOSUCH"]}}`, "capability"},
		"create, bad restart":      {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"RestartPolicy":{"Name":"sometimes"}}}`, "sometimes"},
		"create, bad bind":         {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"Binds":["a:b:c:d"]}}`, ""},
		"create, bad port":         {400, "POST", "/containers/create", `{"Image":"busybox","ExposedPorts":{"99999/tcp":{}}}`, ""},
		"create, nobody's network": {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"NetworkMode":"container:nosuch"}}`, "No such container: nosuch"},
		"create, nobody's pids":    {400, "POST", "/containers/create", `{"Image":"busybox","HostConfig":{"PidMode":"container:nosuch"}}`, "No such container: nosuch"},
		"kill, not running":        {409, "POST", "/containers/" + n + "/kill", "", "is not running"},
		"kill, bad signal":         {400, "POST", "/containers/" + n + "/kill?signal=NOSUCH", "", "signal"},
		"pause, not running":       {409, "POST", "/containers/" + n + "/pause", "", "is not running"},
		"exec, not running":        {409, "POST", "/containers/" + n + "/exec", `{"Cmd":["true"]}`, "is not running"},
		"exec, no command":         {400, "POST", "/containers/" + n + "/exec", `{}`, ""},
		"stop, not running":        {304, "POST", "/containers/" + n + "/stop", "", ""},
		"rename, same":             {400, "POST", "/containers/" + n + "/rename?name=" + n, "", ""},
		"rename, none":             {400, "POST", "/containers/" + n + "/rename?name=", "", ""},
		"bad filter":               {400, "GET", "/containers/json?filters=x", "", ""},
		"unknown filter":           {400, "GET", "/containers/json?filters=%7B%22nosuch%22%3A%5B%22x%22%5D%7D", "", "filter"},
		"bad number":               {400, "GET", "/containers/json?limit=x", "", ""},
		"bad wait":                 {400, "POST", "/containers/" + n + "/wait?condition=x", "", ""},
		"tag, bad reference":       {400, "POST", "/images/busybox/tag?repo=UPPER", "", "invalid reference format"},
		"pull, bad reference":      {400, "POST", "/images/create?fromImage=UPPER", "", "invalid reference format"},
		"network, no name":         {400, "POST", "/networks/create", `{}`, ""},
		"network, bad driver":      {404, "POST", "/networks/create", `{"Name":"x","Driver":"nosuch"}`, "nosuch"},
		"volume, bad driver":       {404, "POST", "/volumes/create", `{"Name":"x","Driver":"nosuch"}`, "nosuch"},
		"volume, bad name":         {400, "POST", "/volumes/create", `{"Name":"../x"}`, ""},
		"archive, no path":         {400, "GET", "/containers/" + n + "/archive", "", ""},
		"archive, unknown":         {404, "GET", "/containers/" + n + "/archive?path=/nosuch", "", "/nosuch"},
		"path above the root":      {404, "GET", "/containers/..%2f..%2fetc/json", "", ""},
		"remove predefined":        {403, "DELETE", "/networks/bridge", "", ""},
		"not built here: swarm":    {501, "POST", "/swarm/init", `{}`, "swarm"},
		"not built here: plugins":  {501, "POST", "/plugins/pull?remote=x", `[]`, "plugin"},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			answer := d.API(t, tt.status, tt.method, tt.path, tt.body)
			if tt.status == 304 {
				return
			}
			var body struct{ Message string }
			if err := json.Unmarshal([]byte(answer), &body); err != nil || body.Message == "" {
				t.Fatalf("not an error of the API: %q", answer)
			}
			if !strings.Contains(strings.ToLower(body.Message), strings.ToLower(tt.message)) {
				t.Errorf("message %q does not say %q", body.Message, tt.message)
			}
		})
	}
}

// TestLooseInput sends what dockerd 20.10 was seen to accept, and looks for
// what it made of it: every pids limit below one is none, and a domain name may
// be of dots.
func TestLooseInput(t *testing.T) {
	t.Parallel()
	d := shared(t)
	n := name(t)
	const script = "cat /proc/sys/kernel/domainname; cat /sys/fs/cgroup/pids/pids.max 2>/dev/null || cat /sys/fs/cgroup/pids.max"
	d.API(t, 201, "POST", "/containers/create?name="+n, `{"Image":"`+d.Image(t, "busybox")+`","Cmd":["sh","-c","`+script+`"],"Domainname":"..",
		"HostConfig":{"NetworkMode":"none","PidsLimit":-5}}`)
	t.Cleanup(func() { d.Docker(t).Try(t, "rm", "-f", n) })
	limit := func() string {
		return d.Docker(t).OK(t, "inspect", "-f", "{{json .HostConfig.PidsLimit}} {{.Config.Domainname}}", n)
	}
	equal(t, "created", limit(), "null ..")
	equal(t, "inside", d.Docker(t).OK(t, "start", "-a", n), "..\nmax")
	d.API(t, 200, "POST", "/containers/"+n+"/update", `{"PidsLimit":-5}`)
	equal(t, "updated", limit(), "0 ..")
	equal(t, "inside, updated", d.Docker(t).OK(t, "start", "-a", n), "..\nmax")
}

// TestOversizedBody sends more JSON than any request needs.
func TestOversizedBody(t *testing.T) {
	t.Parallel()
	d := shared(t)
	body := `{"Image":"busybox","Env":["` + strings.Repeat("x", 32<<20) + `"]}`
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	status, answer, err := d.Request(ctx, "POST", "/containers/create", []byte(body))
	if err == nil && (status < 400 || status >= 500) {
		t.Errorf("status %d: %.200s", status, answer)
	}
	d.API(t, 200, "GET", "/_ping", "")
}

func TestVersions(t *testing.T) {
	t.Parallel()
	d := shared(t)
	var v struct{ APIVersion, MinAPIVersion, Version, Os, Arch string }
	if err := json.Unmarshal([]byte(d.API(t, 200, "GET", "/version", "")), &v); err != nil {
		t.Fatal(err)
	}
	equal(t, "minimum", v.MinAPIVersion, "1.24")
	for _, api := range []string{"1.24", "1.30", "1.41", "1.44", v.APIVersion} {
		d.API(t, 200, "GET", "/v"+api+"/containers/json?all=1", "")
		d.API(t, 200, "GET", "/v"+api+"/info", "")
		cli := d.Docker(t).With("DOCKER_API_VERSION=" + api)
		if api != "1.24" && api != "1.30" {
			equal(t, "the stock command line with "+api, cli.OK(t, "version", "-f", "{{.Server.APIVersion}}"), v.APIVersion)
		}
	}
	equal(t, "ping", d.API(t, 200, "GET", "/_ping", ""), "OK")
	equal(t, "our client", d.Wherry(t).OK(t, "version", "-f", "{{.Server.APIVersion}}"), v.APIVersion)
}

// TestUnknownEverything gives every command something that is not there.
func TestUnknownEverything(t *testing.T) {
	t.Parallel()
	d := shared(t)
	d.Both(t, func(t *testing.T, cli testenv.CLI) {
		file := filepath.Join(t.TempDir(), "file")
		for _, args := range [][]string{
			{"inspect", "nosuch"}, {"start", "nosuch"}, {"stop", "nosuch"}, {"rm", "nosuch"}, {"logs", "nosuch"},
			{"kill", "nosuch"}, {"pause", "nosuch"}, {"top", "nosuch"}, {"diff", "nosuch"}, {"port", "nosuch"},
			{"attach", "nosuch"}, {"wait", "nosuch"}, {"rename", "nosuch", "x"}, {"update", "-m", "64m", "nosuch"},
			{"rmi", "nosuch"}, {"tag", "nosuch", "x"}, {"history", "nosuch"}, {"save", "-o", file, "nosuch"},
			{"network", "rm", "nosuch"}, {"volume", "rm", "nosuch"}, {"cp", "nosuch:/x", "-"}, {"export", "-o", file, "nosuch"},
		} {
			cli.Fails(t, 1, "no", args...)
		}
	})
}
