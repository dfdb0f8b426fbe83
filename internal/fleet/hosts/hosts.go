// SPDX-License-Identifier: GPL-2.0-only

package hosts

import (
	"bytes"
	"fmt"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/pelletier/go-toml/v2"

	"netsysrq/auth"
)

// Host is whom to ask.
type Host struct {
	Name      string   // as it is asked for and shown
	Enrolled  string   // the name that its key is made for
	Addresses []string // addresses or names to find them by; none: Enrolled
	Port      uint16   // 0: not set
	Key       string   // file of the master key; empty: not set
	Groups    []string // in order
	Listed    bool     // in the file
}

// File is what hosts.toml says. The zero value is an empty file.
type File struct {
	hosts  map[string]*Host
	groups map[string][]string // names of members, in order
	sorted []string            // names of all hosts, in order
	read   bool
}

// All is the group that every host of the file belongs to.
const All = "all"

// document is the file as TOML sees it. Pointers tell what is not set.
type document struct {
	Defaults struct {
		Port *int64  `toml:"port"`
		Key  *string `toml:"key"`
	} `toml:"defaults"`
	Groups map[string]group `toml:"groups"`
	Hosts  map[string]host  `toml:"hosts"`
}

type group struct {
	Port  *int64   `toml:"port"`
	Key   *string  `toml:"key"`
	Hosts []string `toml:"hosts"`
}

type host struct {
	Name      *string  `toml:"name"`
	Address   *string  `toml:"address"`
	Addresses []string `toml:"addresses"`
	Port      *int64   `toml:"port"`
	Key       *string  `toml:"key"`
	Groups    []string `toml:"groups"`
}

// Load reads the file at path; home stands for ~ in it. Its errors are of type
// *Error, unless the file can't be read.
func Load(path, home string) (*File, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("list of hosts: %w", err)
	}
	return parse(path, home, data)
}

func parse(path, home string, data []byte) (*File, error) {
	var doc document
	if err := toml.NewDecoder(bytes.NewReader(data)).DisallowUnknownFields().Decode(&doc); err != nil {
		return nil, explain(path, err)
	}
	r := reader{path: path, home: home, data: data, doc: &doc,
		file: &File{hosts: make(map[string]*Host, len(doc.Hosts)), groups: map[string][]string{}, read: true}}
	r.read()
	if r.err != nil {
		return nil, r.err
	}
	return r.file, nil
}

// reader turns a document into a File, and keeps the first error. Maps are
// walked in order, so that it is the same one each time.
type reader struct {
	path, home string
	data       []byte
	doc        *document
	file       *File
	err        error
}

func (r *reader) fail(table, setting, hint, format string, a ...any) {
	if r.err == nil {
		text := fmt.Sprintf(format, a...)
		if table != "" {
			text = strings.TrimSuffix(table+"."+setting, ".") + ": " + text
		}
		r.err = &Error{Path: r.path, Line: lineOf(r.data, table, setting), Text: text, Hint: hint}
	}
}

func (r *reader) read() {
	r.port("defaults", r.doc.Defaults.Port)
	for _, name := range slices.Sorted(maps.Keys(r.doc.Groups)) {
		table := "groups." + name
		if name == All {
			r.fail(table, "", "@all is every host of the file; [defaults] is for all of them", "the name is taken")
		}
		r.checkGroup(table, "", name)
		r.port(table, r.doc.Groups[name].Port)
	}
	for _, name := range slices.Sorted(maps.Keys(r.doc.Hosts)) {
		h := r.doc.Hosts[name]
		r.host(name, &h)
	}
	for _, name := range slices.Sorted(maps.Keys(r.doc.Groups)) {
		r.members(name, r.doc.Groups[name].Hosts)
	}
	f := r.file
	f.sorted = slices.SortedFunc(maps.Keys(f.hosts), natural)
	for _, name := range f.sorted {
		h := f.hosts[name]
		slices.SortFunc(h.Groups, natural)
		for _, g := range h.Groups {
			f.groups[g] = append(f.groups[g], name)
		}
		r.inherit(h)
	}
}

func (r *reader) checkGroup(table, setting, name string) {
	if auth.CheckLabel(name) != nil || strings.Contains(name, "@") {
		r.fail(table, setting, "", "%q: a group's name is 1 to 64 characters of a-z 0-9 . _ -", name)
	}
}

func (r *reader) host(name string, doc *host) {
	table := "hosts." + name
	h := &Host{Listed: true, Groups: r.unique(table, doc.Groups)}
	var err error
	if h.Name, err = auth.NormalizeHost(name); err != nil {
		r.fail(table, "", "", "%v", err)
	}
	if r.file.hosts[h.Name] != nil {
		r.fail(table, "", "upper and lower case are the same in a host's name", "the host is set a second time")
	}
	h.Enrolled = h.Name
	if doc.Name != nil {
		if h.Enrolled, err = auth.NormalizeHost(*doc.Name); err != nil {
			r.fail(table, "name", "it is the name under which the host was enrolled", "%v", err)
		}
	}
	setting := "addresses"
	if h.Addresses = doc.Addresses; doc.Address != nil {
		if setting = "address"; doc.Addresses != nil {
			r.fail(table, setting, "", "address and addresses exclude each other")
		}
		h.Addresses = []string{*doc.Address}
	} else if doc.Addresses != nil && len(doc.Addresses) == 0 {
		r.fail(table, setting, "leave it out, and the host's name is asked for its address", "the list is empty")
	}
	for _, a := range h.Addresses {
		if _, err := netip.ParseAddr(a); err == nil {
			continue
		}
		if _, err := auth.NormalizeHost(a); err != nil {
			r.fail(table, setting, "a port has a setting of its own: port = 9", "%q is neither an address nor a name", a)
		}
	}
	h.Port = r.port(table, doc.Port)
	if doc.Key != nil {
		h.Key = r.expand(*doc.Key)
	}
	r.file.hosts[h.Name] = h
}

// unique checks a host's list of groups.
func (r *reader) unique(table string, groups []string) (out []string) {
	for _, g := range groups {
		r.checkGroup(table, "groups", g)
		if g != All && !slices.Contains(out, g) {
			out = append(out, g)
		}
	}
	return out
}

// members are the hosts that a group names itself.
func (r *reader) members(group string, names []string) {
	table := "groups." + group
	for _, name := range names {
		n, err := auth.NormalizeHost(name)
		if err != nil {
			r.fail(table, "hosts", "", "%v", err)
			return
		}
		h := r.file.hosts[n]
		if h == nil {
			h = &Host{Name: n, Enrolled: n, Listed: true}
			r.file.hosts[n] = h
		}
		if !slices.Contains(h.Groups, group) {
			h.Groups = append(h.Groups, group)
		}
	}
}

// inherit fills in what the host does not set itself.
func (r *reader) inherit(h *Host) {
	var portOf, keyOf string
	port, key := h.Port, h.Key
	for _, g := range h.Groups {
		group := r.doc.Groups[g]
		if group.Port != nil && h.Port == 0 {
			if v := uint16(*group.Port); portOf != "" && v != port {
				r.fail("groups."+g, "port", "set it for the host itself", "%s gets another port from group %s", h.Name, portOf)
			} else {
				port, portOf = v, g
			}
		}
		if group.Key != nil && h.Key == "" {
			if v := r.expand(*group.Key); keyOf != "" && v != key {
				r.fail("groups."+g, "key", "set it for the host itself", "%s gets another key from group %s", h.Name, keyOf)
			} else {
				key, keyOf = v, g
			}
		}
	}
	d := &r.doc.Defaults
	if port == 0 && d.Port != nil {
		port = uint16(*d.Port)
	}
	if key == "" && d.Key != nil {
		key = r.expand(*d.Key)
	}
	h.Port, h.Key = port, key
}

func (r *reader) port(table string, v *int64) uint16 {
	switch {
	case v == nil:
		return 0
	case *v < 1 || *v > 65535:
		r.fail(table, "port", "", "%d: a UDP port is a number from 1 to 65535", *v)
		return 0
	}
	return uint16(*v)
}

// expand makes a file name absolute: ~/ is the home directory, and others
// begin where hosts.toml is.
func (r *reader) expand(file string) string {
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		return filepath.Join(r.home, rest)
	}
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(filepath.Dir(r.path), file)
}
