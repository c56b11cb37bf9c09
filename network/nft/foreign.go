package nft

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
)

// ForeignOptions configure a Foreign.
type ForeignOptions struct {
	// Tag marks our rules; it is the name of our table.
	Tag string
	// IPv4, IPv6 tell which families are ours to care for.
	IPv4, IPv6 bool
	// Leave only reports.
	Leave  bool
	Logger *slog.Logger
	// Devices lists the bridges to let through.
	Devices func() []string
	// Lost makes our own table again when somebody removed it.
	Lost func() error
}

// Foreign looks after firewalls that others installed: a forward chain whose
// policy is to drop would drop our traffic too, because an accept of ours
// cannot overrule it. It names them, and unless told to leave them alone puts
// tagged accept rules for our bridges at their beginning.
type Foreign struct {
	o ForeignOptions

	mu       sync.Mutex
	reported map[string]bool
	watch    *watcher
}

// NewForeign does nothing yet.
func NewForeign(o ForeignOptions) *Foreign {
	return &Foreign{o: o, reported: map[string]bool{}}
}

// Start checks, and goes on checking whenever somebody changes a firewall.
func (f *Foreign) Start() {
	if !f.o.IPv4 && !f.o.IPv6 {
		return
	}
	if err := f.Check(); err != nil {
		f.o.Logger.Warn("cannot look after other firewalls", "err", err)
	}
	f.reportLegacy()
	w, err := newWatcher(f.changed)
	if err != nil {
		f.o.Logger.Warn("changes of other firewalls stay unnoticed", "err", err)
		return
	}
	f.mu.Lock()
	f.watch = w
	f.mu.Unlock()
}

// changed is called some time after chains or tables were changed by anybody.
func (f *Foreign) changed() {
	t, err := New(Options{Name: f.o.Tag, IPv4: f.o.IPv4, IPv6: f.o.IPv6})
	if err == nil {
		var missing bool
		missing, err = t.Missing()
		if missing {
			f.o.Logger.Warn("somebody removed our firewall rules; making them again", "table", f.o.Tag)
			err = f.o.Lost()
		}
		err = errors.Join(err, t.Close())
	}
	if err = errors.Join(err, f.Check()); err != nil {
		f.o.Logger.Warn("cannot look after other firewalls", "err", err)
	}
}

// Close stops watching; with remove our rules in others' chains go.
func (f *Foreign) Close(remove bool) error {
	f.mu.Lock()
	w := f.watch
	f.watch = nil
	f.mu.Unlock()
	if w != nil {
		w.close()
	}
	if !remove {
		return nil
	}
	return f.apply(nil)
}

// Check makes the accept rules those of the present bridges.
func (f *Foreign) Check() error {
	if !f.o.IPv4 && !f.o.IPv6 {
		return nil
	}
	return f.apply(f.o.Devices())
}

func (f *Foreign) apply(devices []string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	c, err := dial()
	if err != nil {
		return err
	}
	defer func() { _ = c.CloseLasting() }()
	changed := false
	for _, family := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6, nftables.TableFamilyINet} {
		chains, err := c.ListChainsOfTableFamily(family)
		if err != nil {
			return fmt.Errorf("nftables: list chains: %w", err)
		}
		for _, ch := range chains {
			if !f.cares(family) || !forwards(ch) || strings.HasPrefix(ch.Table.Name, "wherry") {
				continue
			}
			ch.Table.Family = family
			did, err := f.chain(c, ch, devices)
			if err != nil {
				return err
			}
			changed = changed || did
		}
	}
	if !changed {
		return nil
	}
	if err := c.Flush(); err != nil {
		return fmt.Errorf("nftables: change accept rules: %w", err)
	}
	return nil
}

func (f *Foreign) cares(family nftables.TableFamily) bool {
	switch family {
	case nftables.TableFamilyIPv4:
		return f.o.IPv4
	case nftables.TableFamilyIPv6:
		return f.o.IPv6
	}
	return true
}

// forwards: a base chain that filters what crosses the host.
func forwards(ch *nftables.Chain) bool {
	return ch.Type == nftables.ChainTypeFilter && ch.Hooknum != nil && *ch.Hooknum == *nftables.ChainHookForward
}

// chain queues the changes for one chain of others.
func (f *Foreign) chain(c *nftables.Conn, ch *nftables.Chain, devices []string) (changed bool, err error) {
	drops := ch.Policy != nil && *ch.Policy == nftables.ChainPolicyDrop
	rules, err := c.GetRules(ch.Table, ch)
	if err != nil {
		return false, fmt.Errorf("nftables: list rules of %s %s: %w", ch.Table.Name, ch.Name, err)
	}
	want := map[string][2]string{} // by comment: direction and device
	if drops && !f.o.Leave {
		for _, d := range devices {
			want[f.comment("in", d)] = [2]string{"in", d}
			want[f.comment("out", d)] = [2]string{"out", d}
		}
	}
	for _, r := range rules {
		comment, ok := userdata.GetString(r.UserData, userdata.TypeComment)
		if !ok || !strings.HasPrefix(comment, f.prefix()) {
			continue
		}
		if _, keep := want[comment]; keep {
			delete(want, comment)
			continue
		}
		r.Table, r.Chain = ch.Table, ch
		if err := c.DelRule(r); err != nil {
			return false, err
		}
		changed = true
	}
	if drops && len(devices) > 0 {
		f.report(ch)
	}
	for _, comment := range slices.Sorted(maps.Keys(want)) {
		c.InsertRule(acceptRule(ch, want[comment][0], want[comment][1], comment))
		changed = true
	}
	return changed, nil
}

func (f *Foreign) prefix() string { return "wherry:" + f.o.Tag + " " }

func (f *Foreign) comment(direction, device string) string {
	return f.prefix() + direction + " " + device
}

// acceptRule is written as iptables would, so that its tools can show it.
func acceptRule(ch *nftables.Chain, direction, device, comment string) *nftables.Rule {
	key := expr.MetaKeyIIFNAME
	if direction == "out" {
		key = expr.MetaKeyOIFNAME
	}
	return &nftables.Rule{
		Table: ch.Table, Chain: ch, UserData: userdata.AppendString(nil, userdata.TypeComment, comment),
		Exprs: []expr.Any{
			&expr.Meta{Key: key, Register: 1},
			&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: append([]byte(device), 0)},
			&expr.Counter{},
			&expr.Verdict{Kind: expr.VerdictAccept},
		},
	}
}

// reportLegacy names legacy iptables, whose chains cannot be changed through
// nftables: if its FORWARD chain drops, only its owner can let us through.
func (f *Foreign) reportLegacy() {
	for family, path := range map[string]string{"ip": "/proc/net/ip_tables_names", "ip6": "/proc/net/ip6_tables_names"} {
		b, err := os.ReadFile(path)
		if err == nil && slices.Contains(strings.Fields(string(b)), "filter") {
			f.o.Logger.Warn("legacy iptables filters packets here: its FORWARD chain must accept those of our bridges", "family", family)
		}
	}
}

// report names a chain once.
func (f *Foreign) report(ch *nftables.Chain) {
	key := fmt.Sprint(ch.Table.Family, ch.Table.Name, ch.Name)
	if f.reported[key] {
		return
	}
	f.reported[key] = true
	what := "accept rules for our bridges were put at its beginning"
	if f.o.Leave {
		what = "it is left as it is: containers may be cut off"
	}
	f.o.Logger.Warn("another firewall drops forwarded packets", "table", ch.Table.Name, "chain", ch.Name, "family", familyName(ch.Table.Family), "done", what)
}

func familyName(f nftables.TableFamily) string {
	switch f {
	case nftables.TableFamilyIPv4:
		return "ip"
	case nftables.TableFamilyIPv6:
		return "ip6"
	}
	return "inet"
}
