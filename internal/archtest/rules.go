package archtest

// module is the path that our own packages begin with.
const module = "github.com/wherry-engine/wherry/"

// A ban forbids packages below from to import packages below to, directly or,
// if deep, through others. Paths of our own are relative to the module;
// one that begins with "=" means that package and none below it. except
// lists what is allowed all the same, on either side.
type ban struct {
	from   string
	to     []string
	deep   bool
	except []string
	why    string
}

// contracts are the nouns of the architecture: their packages hold interfaces
// and vocabulary, the packages below them hold implementations.
var contracts = []string{"container", "content", "events", "image", "logs", "network", "registry", "snapshot", "task", "volume"}

// foreign are products that we are, or compete with: reading their source is
// fine, linking it is not.
var foreign = []string{
	"github.com/docker/docker", "github.com/docker/cli", "github.com/moby/moby/v2", "github.com/moby/moby/client",
	"github.com/opencontainers/runc", "github.com/containers/podman", "github.com/containerd/nerdctl",
}

// heavy is what the command line must not link, because linking it costs
// milliseconds at every start.
var heavy = []string{
	"go.opentelemetry.io", "google.golang.org", "github.com/containerd/containerd", "github.com/moby/buildkit",
	"github.com/distribution/reference", "github.com/compose-spec", "go.etcd.io", "github.com/sirupsen/logrus",
}

// effects are what a package needs that does more than to turn values into others.
var effects = []string{"os", "net/http", "golang.org/x/sys", "events", "snapshot", "volume"}

const conversion = "it turns values into others and keeps them; what happens to containers is up to engine/lifecycle"

var bans = []ban{
	{from: "", to: foreign, deep: true,
		why: "they are the product; we link libraries of the field, not engines"},
	{from: "cmd/wherry", to: append([]string{"api", "engine", "daemon", "supervisor", "ocirun", "build"}, heavy...), deep: true, except: []string{"cmd/wherryd", "cmd/wherry-runtime"},
		why: "the command line starts in milliseconds and speaks to daemons through the API alone"},
	{from: "cmd/wherry-runtime", to: append([]string{"net/http", "crypto/tls", "regexp", "text/template", "github.com/moby/moby", "api", "engine", "client", "cli"}, heavy...), deep: true,
		why: "the first process of every container runs this binary: what it links is paid at each start, and is attack surface"},
	{from: "api", to: []string{"engine", "daemon", "cmd", "cli", "client", "supervisor", "build"}, except: []string{"api/build"},
		why: "the API declares the small interfaces it needs; whoever wires the daemon provides them"},
	{from: "api/build", to: []string{"engine", "daemon", "build"},
		why: "the same as for the rest of the API"},
	{from: "engine", to: []string{"api", "daemon", "cmd", "cli", "client", "supervisor", "keeper", "dataplane", "image/store", "content/local", "snapshot/overlay", "network/bridge", "volume/local", "events/bus", "task/remote", "build", "github.com/containerd/containerd"},
		why: "use cases know contracts, never what implements them"},
	{from: "engine", to: []string{"engine/lifecycle"},
		why: "it is on top: whatever it uses is explained without it"},
	{from: "engine", to: []string{"internal/state"}, except: []string{"engine/records"},
		why: "one package knows what is on disk of containers, and in which version"},
	{from: "engine/describe", to: effects, why: conversion},
	{from: "engine/exec", to: effects, why: conversion},
	{from: "engine/imageconfig", to: effects, why: conversion},
	{from: "engine/launch", to: effects, why: conversion},
	{from: "cli", to: []string{"api", "engine", "daemon", "cmd", "supervisor"},
		why: "the command line knows the API's wire types and nothing of the daemon"},
	{from: "client", to: []string{"cli", "api", "engine", "daemon"},
		why: "a thin HTTP client"},
	{from: "ociref", to: []string{"api", "cli", "client", "engine", "container", "image", "registry", "github.com/moby", "github.com/distribution"},
		why: "a leaf: pure parsing"},
	{from: "ocirun", to: []string{"api", "engine", "daemon", "supervisor", "task", "network", "image", "github.com/opencontainers/runc"},
		why: "the runtime library knows bundles and processes, not engines"},
	{from: "ociexec", to: []string{"api", "engine", "daemon", "supervisor", "task", "network", "image", "github.com/opencontainers/runc"},
		why: "other runtimes' containers are bundles and processes, too"},
	{from: "supervisor", to: []string{"api", "engine", "daemon", "image", "network", "build"},
		why: "it outlives the daemon and depends on nothing of it"},
	{from: "keeper", to: []string{"api", "engine", "daemon", "supervisor", "task", "ocirun"},
		why: "almost no code: it must never have a reason to die"},
	{from: "", to: []string{"github.com/sirupsen/logrus"}, except: []string{"internal/logbridge"},
		why: "we log with log/slog; logbridge adapts what libraries write"},
	{from: "", to: []string{"github.com/moby/buildkit"}, except: []string{"build", "cmd/wherryd"},
		why: "BuildKit stays behind our interface"},
	{from: "", to: []string{"github.com/containerd/containerd"}, except: []string{"build", "image/store", "content", "snapshot", "registry/client", "cmd/wherryd"},
		why: "containerd's core stays in the implementations of image, content, snapshot and in build"},
	{from: "", to: []string{"google.golang.org/grpc"}, except: []string{"build", "api/build", "cmd/wherryd"},
		why: "gRPC is BuildKit's, and stays with it"},
	{from: "", to: []string{"=log", "testing"}, except: []string{"hello/mkimage", "fixtures/make-images", "internal/testenv", "bench", "*test"},
		why: "loggers are injected; test code is not linked into programs"},
	{from: "internal", to: []string{"api", "engine", "daemon", "cli", "client", "cmd", "image", "network", "supervisor"},
		why: "internal packages are leaves"},
}

// limits bound what the small programs link, in packages that are not ours
// (splitting our own code into small packages costs nothing at start-up).
var limits = []struct {
	program string
	max     int
	why     string
}{
	{"cmd/wherry", 240, "start-up time; a skeleton of cobra, net/http and the API types has 210"},
	{"cmd/wherry-runtime", 110, "start-up time and attack surface; a skeleton has 76"},
}

// Sizes that are a sign to look again. They are reported, not enforced.
const (
	largeFunction = 60 // lines
	largeFile     = 500
	largePackage  = 3000
)
