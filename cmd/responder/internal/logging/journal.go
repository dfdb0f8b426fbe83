// SPDX-License-Identifier: GPL-2.0-only

package logging

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"unicode"
)

// journalSocket takes records in the format that systemd documents as the
// Native Journal Protocol: one datagram a record, no reply.
const journalSocket = "/run/systemd/journal/socket"

// inJournal reports whether w is standard error and the journal reads it:
// systemd puts device and inode of the stream into the environment.
func inJournal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	if err != nil {
		return false
	}
	st := info.Sys().(*syscall.Stat_t)
	return os.Getenv("JOURNAL_STREAM") == fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}

// journalHandler sends each attribute as a field of its own, NETSYSRQ_ and its
// name in capitals, so that journalctl can select by it. The message has them
// too, for people.
type journalHandler struct {
	level  slog.Leveler
	attrs  []slog.Attr
	prefix string    // of the groups that are open
	w      io.Writer // a whole record with each Write
}

func dialJournal(path string) (io.Writer, error) {
	c, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("log format journald: there is no journal on this host, use text or json: %w", err)
	}
	return c, nil
}

func (h *journalHandler) Enabled(_ context.Context, l slog.Level) bool {
	return l >= h.level.Level()
}

func (h *journalHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = append(append([]slog.Attr(nil), h.attrs...), flat(h.prefix, attrs)...)
	return &c
}

func (h *journalHandler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.prefix += name + "."
	return &c
}

// flat resolves values and turns groups into dotted names.
func flat(prefix string, attrs []slog.Attr) []slog.Attr {
	out := make([]slog.Attr, 0, len(attrs))
	for _, a := range attrs {
		v := a.Value.Resolve()
		if v.Kind() == slog.KindGroup {
			p := prefix
			if a.Key != "" {
				p += a.Key + "."
			}
			out = append(out, flat(p, v.Group())...)
			continue
		}
		if a.Key != "" {
			out = append(out, slog.Attr{Key: prefix + a.Key, Value: v})
		}
	}
	return out
}

func (h *journalHandler) Handle(_ context.Context, r slog.Record) error {
	var own []slog.Attr
	r.Attrs(func(a slog.Attr) bool {
		own = append(own, a)
		return true
	})
	var fields bytes.Buffer
	message := r.Message
	for _, a := range append(append([]slog.Attr(nil), h.attrs...), flat(h.prefix, own)...) {
		value := a.Value.String()
		field(&fields, "NETSYSRQ_"+fieldName(a.Key), value)
		message += " " + a.Key + "=" + quoted(value)
	}
	field(&fields, "MESSAGE", message)
	field(&fields, "PRIORITY", priority(r.Level))
	field(&fields, "SYSLOG_IDENTIFIER", "netsysrqd")
	_, err := h.w.Write(fields.Bytes())
	return err
}

// field writes one field: a line, or, for a value with line feeds, the name, a
// line feed, the length in little-endian 64 bits and the value.
func field(b *bytes.Buffer, name, value string) {
	b.WriteString(name)
	if strings.Contains(value, "\n") {
		b.WriteByte('\n')
		b.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(value))))
	} else {
		b.WriteByte('=')
	}
	b.WriteString(value)
	b.WriteByte('\n')
}

// quoted keeps a value from looking like more than one.
func quoted(value string) string {
	special := func(c rune) bool { return c <= ' ' || c == '"' || c == '=' || !unicode.IsPrint(c) }
	if value == "" || strings.ContainsFunc(value, special) {
		return fmt.Sprintf("%q", value)
	}
	return value
}

// fieldName is a name that the journal takes: capitals, digits and underscores.
func fieldName(key string) string {
	return strings.Map(func(c rune) rune {
		switch {
		case c >= 'a' && c <= 'z':
			return c - 'a' + 'A'
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9':
			return c
		}
		return '_'
	}, key)
}

// priority is the syslog severity of a level (RFC 5424 6.2.1).
func priority(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "3"
	case l >= slog.LevelWarn:
		return "4"
	case l >= slog.LevelInfo:
		return "6"
	}
	return "7"
}
