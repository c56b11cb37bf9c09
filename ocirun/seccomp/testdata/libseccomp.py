# Assembles an OCI seccomp configuration (stdin, JSON) with libseccomp and
# writes the filter to stdout; names that the library does not know go to stderr.
import ctypes, json, os, sys, tempfile

lib = ctypes.CDLL("libseccomp.so.2", use_errno=True)
lib.seccomp_init.restype = ctypes.c_void_p


class Cmp(ctypes.Structure):
    _fields_ = [("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64)]


ARCH = {"SCMP_ARCH_X86": 0x40000003, "SCMP_ARCH_X86_64": 0xC000003E, "SCMP_ARCH_X32": 0x4000003E}
OPS = {"SCMP_CMP_NE": 1, "SCMP_CMP_LT": 2, "SCMP_CMP_LE": 3, "SCMP_CMP_EQ": 4, "SCMP_CMP_GE": 5, "SCMP_CMP_GT": 6, "SCMP_CMP_MASKED_EQ": 7}
ACTIONS = {"SCMP_ACT_ALLOW": 0x7FFF0000, "SCMP_ACT_ERRNO": 0x00050000, "SCMP_ACT_TRACE": 0x7FF00000, "SCMP_ACT_TRAP": 0x00030000,
           "SCMP_ACT_KILL": 0, "SCMP_ACT_KILL_THREAD": 0, "SCMP_ACT_KILL_PROCESS": 0x80000000, "SCMP_ACT_LOG": 0x7FFC0000}


def action(name, errno):
    a = ACTIONS[name]
    if name in ("SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"):
        a |= 1 if errno is None else errno
    return a


conf = json.load(sys.stdin)
default = action(conf["defaultAction"], conf.get("defaultErrnoRet"))
ctx = ctypes.c_void_p(lib.seccomp_init(ctypes.c_uint32(default)))
for a in conf.get("architectures") or []:
    lib.seccomp_arch_add(ctx, ctypes.c_uint32(ARCH[a]))
unknown = []
for s in conf.get("syscalls") or []:
    act = action(s["action"], s.get("errnoRet"))
    if act == default:
        continue
    for name in s["names"]:
        nr = lib.seccomp_syscall_resolve_name(name.encode())
        if nr == -1:
            unknown.append(name)
            continue
        args = s.get("args") or []
        indexes = [x["index"] for x in args]
        groups = [args] if len(set(indexes)) == len(indexes) else [[x] for x in args]
        for g in groups:
            arr = (Cmp * max(1, len(g)))(*[Cmp(x["index"], OPS[x["op"]], x["value"], x.get("valueTwo", 0)) for x in g])
            rc = lib.seccomp_rule_add_array(ctx, ctypes.c_uint32(act), nr, len(g), arr)
            if rc not in (0, -17):
                sys.exit("rule %s: %s" % (name, os.strerror(-rc)))
with tempfile.TemporaryFile() as f:
    if lib.seccomp_export_bpf(ctx, f.fileno()) != 0:
        sys.exit("export")
    f.seek(0)
    sys.stdout.buffer.write(f.read())
sys.stderr.write(" ".join(unknown))
