// SPDX-License-Identifier: GPL-2.0-only

//go:build install

package system_test

import (
	"bufio"
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"netsysrq/internal/system"
	"netsysrq/internal/vm"
)

// observer looks at the rules, and at what check says of them.
//
//go:embed testdata/observe.py
var observer []byte

// backIn is how soon a request is answered again after something has taken the
// rules away.
const backIn = 5 * time.Second

// disturbance is something that a host's firewall goes through.
type disturbance struct {
	name   string
	script string
	// lost is how often the rules have to be put back, at least and at most: what
	// flushes in several steps may be overtaken.
	lost [2]int
}

var (
	stays = [2]int{0, 0}
	once  = [2]int{1, 1}
	twice = [2]int{1, 2}
	some  = [2]int{1, 4}
)

// For both versions of IP, as scripts of an administrator do it.
func both(command string) string {
	return fmt.Sprintf("for ip in iptables ip6tables; do %s; done", command)
}

const emptyRaw = `printf '*raw\n:PREROUTING ACCEPT [0:0]\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n' | $ip-restore`

// docker are rules as its daemon makes them for a container that publishes a port.
const docker = `
iptables -t nat -N DOCKER
iptables -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
iptables -t nat -A POSTROUTING -s 198.51.100.0/24 ! -o docker0 -j MASQUERADE
iptables -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination 198.51.100.2:80
for c in DOCKER DOCKER-USER DOCKER-FORWARD; do iptables -N $c; done
iptables -P FORWARD DROP
iptables -A FORWARD -j DOCKER-USER
iptables -A FORWARD -j DOCKER-FORWARD
iptables -A DOCKER-FORWARD -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
iptables -A DOCKER-FORWARD -o docker0 -j DOCKER
iptables -A DOCKER ! -i docker0 -o docker0 -j DROP
iptables -t raw -A PREROUTING -d 198.51.100.2/32 ! -i docker0 -j DROP
iptables -t raw -A PREROUTING -d 127.0.0.1/32 ! -i lo -p tcp --dport 8080 -j DROP
`

// disturbances are what a host with rules in one backend goes through, in this
// order.
func disturbances(r system.Release, backend string) []disturbance {
	// nft does not see the legacy tables.
	ofNft := func(lost [2]int) [2]int {
		if backend == "nft" {
			return lost
		}
		return stays
	}
	firewalld := stays
	if r == system.Bookworm {
		firewalld = some // its 1.3 flushes all tables of iptables
	}
	return []disturbance{
		{"ufw enable", "ufw --force enable", stays},
		{"ufw reload", "ufw reload", stays},
		{"ufw disable and reset", "ufw disable; ufw --force reset", stays},
		{"restore of other tables", both("$ip-save -t filter >/run/saved; $ip-restore </run/saved"), stays},
		{"flush of other tables", both("$ip -F; $ip -X; $ip -t nat -F; $ip -t nat -X"), stays},
		{"docker", docker, stays},
		{"a rule before ours", "iptables -t raw -I PREROUTING -p tcp --dport 81 -j ACCEPT", once},
		{"restore of an empty raw table", both(emptyRaw), once},
		{"flush of the raw table", both("$ip -t raw -F"), once},
		{"flush ruleset", "echo flush ruleset | nft -f -", ofNft(once)},
		{"nftables restart", "systemctl restart nftables", ofNft(twice)},
		{"nftables stop", "systemctl stop nftables", ofNft(once)},
		{"firewalld start", "systemctl start firewalld || { journalctl -n 40 -u firewalld >&2; exit 1; }", firewalld},
		{"firewalld reload", "firewall-cmd --reload", firewalld},
		{"firewalld stop", "systemctl stop firewalld", firewalld},
	}
}

// look is what the observer saw at one moment.
type look struct {
	At, End float64 // CLOCK_MONOTONIC, in seconds
	Here    [2]bool // of IPv4 and IPv6: the rules are complete and first
	Steady  bool    // they were the same before check looked and after it
	Says    [2]string
	Verdict string
}

// neighbours is a host with an operator, and with rules in one backend.
type neighbours struct {
	*system.Machine
	o       *operator
	backend string
	judged  int       // looks of the observer
	looked  float64   // when the last of them began, CLOCK_MONOTONIC
	blind   bool      // the observer is no more
	lost    int       // those of them that saw that the rules were lost
	mended  int       // since the watcher began
	said    []float64 // when the watcher said something, CLOCK_MONOTONIC
}

// alternatives makes a backend the one that iptables stands for.
func alternatives(backend string) string {
	return both("update-alternatives --quiet --set $ip /usr/sbin/$ip-" + backend)
}

func newNeighbours(t *testing.T, i *system.Image, backend string) *neighbours {
	n := &neighbours{Machine: system.From(t, installed(t, i), system.Options{Life: 30 * time.Minute}), backend: backend}
	n.Sh(t, time.Minute, alternatives(backend))
	n.o = newOperator(t, n.Machine)
	n.o.enroll(t, n.Machine)
	n.drill(t)
	return n
}

// drill proves both ways. On a busy host the daemon of an emulated machine may be
// too late at times.
func (n *neighbours) drill(t *testing.T) {
	t.Helper()
	for range 4 {
		if n.o.run(t, time.Minute, "drill", "web1").code == 0 {
			return
		}
	}
	t.Fatal("the drill proves less than both ways")
}

// observe starts the observer.
func (n *neighbours) observe(t *testing.T) {
	t.Helper()
	ctx := vm.Within(t, time.Minute)
	if err := n.WriteFile(ctx, "/run/observe.py", 0o644, observer); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Start(ctx, "observer", "nice", "-n", "10", "python3", "/run/observe.py", n.backend, "/run/observed"); err != nil {
		t.Fatal(err)
	}
}

// honest judges what check has said since it was last judged, and returns when the
// observer last began to look, by the machine's own clock, in seconds.
func (n *neighbours) honest(t *testing.T) float64 {
	t.Helper()
	b, err := n.ReadFile(vm.Within(t, time.Minute), "/run/observed")
	if err != nil {
		t.Fatal(err)
	}
	s := bufio.NewScanner(bytes.NewReader(b))
	for i := 0; s.Scan(); i++ {
		var l look
		if i < n.judged {
			continue
		}
		if json.Unmarshal(s.Bytes(), &l) != nil {
			break // half written
		}
		n.judged++
		n.looked = l.At
		// The rules may have been lost and put back while it looked.
		mended := slices.ContainsFunc(n.said, func(at float64) bool { return at > l.At && at < l.End+2 })
		if !l.Steady || mended {
			continue
		}
		if l.Here != [2]bool{true, true} {
			n.lost++
		}
		verdict := "obey"
		for i, here := range l.Here {
			if here != (l.Says[i] == "ok") {
				t.Errorf("check does not tell the truth: %+v", l)
			}
			if l.Says[i] == "fail" {
				verdict = "refuse"
			}
		}
		if l.Verdict != verdict {
			t.Errorf("the verdict of check: %+v", l)
		}
	}
	return n.looked
}

// now is the time of the machine's own clock.
func (n *neighbours) now(t *testing.T) time.Duration {
	t.Helper()
	c, err := n.Clocks(vm.Within(t, time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return c.Monotonic
}

var logLine = regexp.MustCompile(`^\[ *([0-9.]+)\] \S+ \S+: (.*)`)

// log returns what the watcher of the rules has said since it was last asked.
func (n *neighbours) log(t *testing.T) (lines []string) {
	t.Helper()
	out := n.Sh(t, time.Minute, "journalctl --sync; journalctl -q -o short-monotonic --cursor-file=/run/rules.cursor _SYSTEMD_UNIT=netsysrq-rules.service || true")
	for line := range strings.Lines(out) {
		m := logLine.FindStringSubmatch(strings.TrimSpace(line))
		if m == nil {
			t.Fatalf("the journal: %q", line)
		}
		at, err := strconv.ParseFloat(m[1], 64)
		if err != nil {
			t.Fatal(err)
		}
		n.said = append(n.said, at)
		lines = append(lines, m[2])
	}
	return lines
}

// here reports whether the rules of both versions of IP are in place and first.
func (n *neighbours) here(t *testing.T) bool {
	t.Helper()
	script := fmt.Sprintf(`for ip in iptables ip6tables; do $ip-%s-save -t raw >/run/raw
		grep -m 1 '^-A PREROUTING' /run/raw | grep -q ' -j netsysrq$' && grep -q '^-A netsysrq .* -j NETSYSRQ ' /run/raw || exit 1
	done`, n.backend)
	_, code, err := n.Exec(vm.Within(t, time.Minute), nil, "sh", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return code == 0
}

// answers reports whether the host answers at once.
func (n *neighbours) answers(t *testing.T) bool {
	t.Helper()
	a, err := n.o.try(t.Context(), time.Minute, "status", "web1", "--timeout", "500ms")
	if err != nil {
		t.Fatal(err)
	}
	return a.code == 0
}

// fine waits until the rules are in place and the host answers.
func (n *neighbours) fine(t *testing.T) {
	t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !n.here(t) || !n.answers(t) {
		if time.Now().After(deadline) {
			t.Fatalf("the rules are in place: %v; the host answers: %v", n.here(t), n.answers(t))
		}
	}
}

// pace is how many times slower than usual the machine is: of a busy host, an
// emulator gets little. A check takes half a second.
func (n *neighbours) pace(t *testing.T) float64 {
	t.Helper()
	start := n.now(t)
	n.Exec(vm.Within(t, 2*time.Minute), nil, "netsysrqd", "check", "--quiet")
	return max(1, (n.now(t) - start).Seconds())
}

// suffers is one disturbance and what comes of it.
func (n *neighbours) suffers(t *testing.T, d disturbance) {
	t.Run(d.name, func(t *testing.T) {
		if log := n.log(t); log != nil {
			t.Errorf("before it the watcher said more: %q", log)
		}
		// Five times within a minute is the watcher's limit.
		if n.mended+d.lost[1] > 5 {
			n.Sh(t, time.Minute, "systemctl restart netsysrq-rules")
			n.mended = 0
		}
		if d.lost != stays {
			n.Sh(t, time.Minute, "touch /run/observed.busy")
		}
		start := n.now(t)
		n.Sh(t, 10*time.Minute, d.script)
		ended := n.now(t)
		for !n.answers(t) {
			if after := n.now(t) - ended; after > backIn && after.Seconds() > backIn.Seconds()*n.pace(t) {
				t.Fatalf("%v after it the host does not answer; the watcher said %q", after, n.log(t))
			}
		}
		t.Logf("after %v of it, answered within %v", ended-start, n.now(t)-ended)
		log := n.log(t)
		for deadline := time.Now().Add(time.Minute); len(log) < d.lost[0] && time.Now().Before(deadline); {
			log = append(log, n.log(t)...)
		}
		if d.lost != stays {
			time.Sleep(2 * time.Second) // another line would come by then
		}
		log = append(log, n.log(t)...)
		n.mended += len(log)
		if len(log) < d.lost[0] || len(log) > d.lost[1] {
			t.Errorf("the watcher said %q, it is to be %v lines", log, d.lost)
		}
		for _, line := range log {
			if !strings.Contains(line, "were not in place: put back") {
				t.Errorf("the watcher said %q", line)
			}
		}
		n.fine(t)
		n.Sh(t, time.Minute, "touch /run/observed.busy")
		for deadline := time.Now().Add(time.Minute); !n.blind && n.honest(t) < start.Seconds(); time.Sleep(200 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("the observer does not look")
			}
		}
		n.Sh(t, time.Minute, "rm -f /run/observed.busy")
	})
}

// Whatever a host's own firewall goes through, it obeys again within seconds, says
// so in one line, and check tells the truth meanwhile. Each backend goes through all
// of it on one release at least, and that of nft through firewalld, whose two versions
// have little in common, on both.
func TestHostileNeighbours(t *testing.T) {
	whole := map[string]system.Release{"nft": system.Trixie, "legacy": system.Bookworm}
	on(t, func(t *testing.T, i *system.Image) {
		for backend, r := range whole {
			if i.Release == system.Trixie && backend == "legacy" && !everything {
				continue // its firewalld uses nft, and stays away from those tables
			}
			t.Run(backend, func(t *testing.T) {
				t.Parallel()
				n := newNeighbours(t, i, backend)
				n.log(t)
				n.observe(t)
				all := everything || i.Release == r
				for _, d := range disturbances(i.Release, backend) {
					if all || strings.HasPrefix(d.name, "firewalld") {
						n.suffers(t, d)
					}
				}
				if all {
					t.Run("no watcher", n.withoutWatcher)
					t.Run("saved rules", n.saves)
					t.Run("quiet", n.quiet)
				}
				if backend == "nft" && i.Release == system.Bookworm {
					t.Run("fight", n.fights)
				} else {
					t.Run("other backend", n.switches)
				}
				n.drill(t)
			})
		}
	})
}

// Without the watcher the rules stay away, and check says so until it is back.
func (n *neighbours) withoutWatcher(t *testing.T) {
	n.Sh(t, time.Minute, "touch /run/observed.busy; systemctl stop netsysrq-rules; "+both("$ip -t raw -F"))
	n.honest(t)
	n.lost = 0
	if n.here(t) || n.answers(t) {
		t.Errorf("after a flush the rules are in place: %v, the host answers: %v", n.here(t), n.answers(t))
	}
	out, code, err := n.Exec(vm.Within(t, time.Minute), nil, "netsysrqd", "check")
	if err != nil || code != 1 || !strings.Contains(out, "this host would NOT obey: rule IPv4, rule IPv6") {
		t.Errorf("check: %d, %v: %s", code, err, out)
	}
	for deadline := time.Now().Add(2 * time.Minute); n.lost == 0; time.Sleep(500 * time.Millisecond) {
		if n.honest(t); time.Now().After(deadline) {
			t.Fatal("the observer does not see that the rules are lost")
		}
	}
	n.Sh(t, time.Minute, "rm /run/observed.busy; systemctl start netsysrq-rules")
	n.mended = 1
	n.fine(t)
	if log := n.log(t); len(log) != 1 || !strings.Contains(log[0], "put back") {
		t.Errorf("the watcher said %q", log)
	}
}

// What others write to disk does not name the target, but for an administrator who
// saves all there is: check warns of that, and says how to repair it.
func (n *neighbours) saves(t *testing.T) {
	named := "grep -rl --exclude-dir=netsysrq -e NETSYSRQ -e 'chain netsysrq' /etc /var/lib/ufw /var/lib/firewalld 2>/dev/null || true"
	if files := n.Sh(t, time.Minute, named); files != "" {
		t.Errorf("the target is named in %s", files)
	}
	n.Sh(t, time.Minute, "mkdir -p /etc/iptables; iptables-save >/etc/iptables/rules.v4; ip6tables-save >/etc/iptables/rules.v6; cp /etc/nftables.conf /run")
	warned := map[string]string{"/etc/iptables/rules.v4, /etc/iptables/rules.v6": "sed -i /netsysrq/d /etc/iptables/rules.v4 /etc/iptables/rules.v6"}
	if n.backend == "nft" {
		n.Sh(t, time.Minute, "nft list ruleset >/etc/nftables.conf")
		warned["/etc/nftables.conf"] = "cp /run/nftables.conf /etc"
	}
	out := n.Sh(t, time.Minute, "netsysrqd check")
	for files, repair := range warned {
		if !strings.Contains(out, files) {
			t.Errorf("check does not warn of %s:\n%s", files, out)
		}
		n.Sh(t, time.Minute, repair)
	}
	if !strings.Contains(out, "sed -i /netsysrq/d /etc/iptables/rules.v4 /etc/iptables/rules.v6\n") {
		t.Errorf("check does not say how to repair it:\n%s", out)
	}
	if out := n.Sh(t, time.Minute, "netsysrqd check"); strings.Contains(out, "saved rules") {
		t.Errorf("repaired, check still warns:\n%s", out)
	}
	n.Sh(t, time.Minute, both("$ip-restore --test </etc/iptables/rules.v$(test $ip = iptables && echo 4 || echo 6)"))
}

// generation is what changes when the rules are put back.
func (n *neighbours) generation(t *testing.T) string {
	t.Helper()
	if n.backend == "nft" {
		return n.Sh(t, time.Minute, "for f in ip ip6; do nft -a -s list chain $f raw PREROUTING; done | grep 'jump netsysrq '")
	}
	// These have no handles, but count from zero when they are put back.
	return n.Sh(t, time.Minute, both("$ip-legacy -t raw -vxnL PREROUTING | grep ' netsysrq '"))
}

// quiet: with nobody else at work, nothing changes.
func (n *neighbours) quiet(t *testing.T) {
	before := n.generation(t)
	time.Sleep(10 * time.Second)
	if after := n.generation(t); after != before || !strings.Contains(before, "netsysrq") {
		t.Errorf("the rules were\n%sand are\n%s", before, after)
	}
	if log := n.log(t); log != nil {
		t.Errorf("the watcher said %q", log)
	}
}

// fights: what takes the rules away all the time is not fought all the time, and
// once it has ended the rules come back.
func (n *neighbours) fights(t *testing.T) {
	n.Sh(t, time.Minute, "systemctl restart netsysrq-rules")
	n.Sh(t, 10*time.Minute, "for i in $(seq 20); do iptables -t raw -F; sleep 1; done")
	log := n.log(t)
	if len(log) > 6 || len(log) < 2 || !strings.Contains(log[len(log)-1], "lost again and again") {
		t.Errorf("the watcher said %q", log)
	}
	if n.answers(t) {
		t.Error("the host answers while the rules are gone")
	}
	start := n.now(t)
	for !n.here(t) {
		if after := n.now(t) - start; after > 75*time.Second {
			t.Fatalf("%v after the end of it the rules are not back", after)
		}
		time.Sleep(time.Second)
	}
	if log := n.log(t); len(log) != 1 || !strings.Contains(log[0], "put back") {
		t.Errorf("after it the watcher said %q", log)
	}
}

// switches: iptables stands for the other backend while the host is armed.
func (n *neighbours) switches(t *testing.T) {
	if err := n.Signal(vm.Within(t, time.Minute), "observer", 9); err != nil {
		t.Error(err)
	}
	n.blind = true
	to := "nft"
	if n.backend == "nft" {
		to = "legacy"
	}
	// The rules work where they are; check knows.
	n.Sh(t, time.Minute, "systemctl stop netsysrq-rules; "+alternatives(to))
	out, code, err := n.Exec(vm.Within(t, time.Minute), nil, "netsysrqd", "check")
	if err != nil || code != 0 || strings.Count(out, "in that of the other backend, where it works") != 2 {
		t.Errorf("check: %d, %v: %s", code, err, out)
	}
	n.fine(t)
	n.Sh(t, time.Minute, "systemctl start netsysrq-rules")
	old := *n
	n.backend, n.mended = to, 1
	n.fine(t)
	if old.here(t) {
		t.Errorf("the rules are in the old backend too")
	}
	if log := n.log(t); len(log) != 1 || !strings.Contains(log[0], "put back") {
		t.Errorf("the watcher said %q", log)
	}
	// Back again, while it watches.
	n.backend = old.backend
	n.suffers(t, disturbance{"back", alternatives(old.backend), once})
}

// A host obeys again after a boot with each of the firewalls that are enabled, which
// let nothing in: our rules come before them. What flushes them as it starts is
// firewalld on Debian 12, nftables on 13.
func TestFirewallAfterBoot(t *testing.T) {
	on(t, func(t *testing.T, i *system.Image) {
		n := newNeighbours(t, i, "nft")
		boot := func(name, script string) {
			t.Run(name, func(t *testing.T) {
				n.Sh(t, 10*time.Minute, script+"; sync")
				n.o.powerOn(t, n.Machine)
				if err := n.AwaitRunning(t.Context()); err != nil {
					t.Fatal(err)
				}
				n.fine(t)
				n.drill(t)
			})
		}
		if everything || i.Release == system.Bookworm {
			// Nothing goes out but what is allowed to: that includes replies.
			n.Sh(t, 10*time.Minute, "ufw default deny outgoing; ufw --force enable")
			if n.answers(t) {
				t.Error("with ufw denying what goes out, the host answers")
			}
			n.Sh(t, 10*time.Minute, "ufw allow out from any port 9 proto udp")
			n.fine(t)
			boot("ufw", "systemctl enable ufw")
			boot("firewalld", "ufw disable; systemctl disable ufw; systemctl enable firewalld")
		}
		if everything || i.Release == system.Trixie {
			boot("nftables", "ufw disable; systemctl disable ufw firewalld; systemctl enable nftables")
		}
	})
}

// A host that has nft and no iptables has the file of rules, and the daemon's half
// of a drill; it reboots when it is asked to, and comes back as it was.
func TestWithoutIptables(t *testing.T) {
	on(t, func(t *testing.T, i *system.Image) {
		m := system.From(t, installed(t, i), system.Options{Life: 30 * time.Minute})
		m.Sh(t, 10*time.Minute, "apt-get purge -y iptables")
		m.Sh(t, time.Minute, "if command -v iptables; then exit 1; fi; dpkg -s netsysrq-responder | grep '^Status: install ok installed'")
		m.Sh(t, time.Minute, "systemctl mask --now netsysrq-arm netsysrq-rules; nft -f /usr/share/netsysrq/netsysrq.nft")
		o := newOperator(t, m)
		o.enroll(t, m)
		check := func(want int, text string) {
			t.Helper()
			out, code, err := m.Exec(vm.Within(t, time.Minute), nil, "netsysrqd", "check")
			if err != nil || code != want || !strings.Contains(out, text) {
				t.Errorf("check: %d, %v: %s", code, err, out)
			}
		}
		half := func() {
			t.Helper()
			a := o.run(t, time.Minute, "drill", "web1")
			if a.code != 7 || !strings.Contains(a.out, "half proved: the daemon answers") {
				t.Errorf("the drill: %d: %s", a.code, a.out)
			}
			if out := o.must(t, "status", "web1"); !strings.Contains(out, "daemon only") {
				t.Errorf("the status: %s", out)
			}
			check(0, "this host would obey requests from: alice")
		}
		half()
		m.Sh(t, time.Minute, "nft delete table inet netsysrq")
		check(1, "this host would NOT obey: rule\n")
		m.Sh(t, time.Minute, "nft -f /usr/share/netsysrq/netsysrq.nft")
		// Loaded again they are the same; so is what a boot loads.
		m.Sh(t, time.Minute, `nft -f /usr/share/netsysrq/netsysrq.nft
			printf 'include "/usr/share/netsysrq/netsysrq.nft"\n' >>/etc/nftables.conf
			systemctl enable --now nftables`)
		half()
		if i.Release == system.Bookworm && !everything {
			return // the other release shows it
		}
		o.must(t, "reboot", "web1", "--yes")
		end, err := m.Wait(vm.Within(t, 2*time.Minute))
		if err != nil || end.Fate != vm.Reset {
			t.Fatalf("the machine ended with %+v, %v", end, err)
		}
		o.powerOn(t, m)
		if err := m.AwaitRunning(t.Context()); err != nil {
			t.Fatal(err)
		}
		half()
	})
}
