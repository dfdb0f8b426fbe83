// SPDX-License-Identifier: GPL-2.0-only

package vm

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
)

// qmp is QEMU's own channel (docs/interop/qmp-spec.txt): commands to it, and
// events that say what the machine did.
type qmp struct {
	conn net.Conn
	mu   sync.Mutex // one command at a time
	back chan qmpMessage
}

type qmpMessage struct {
	Event string          `json:"event"`
	Data  json.RawMessage `json:"data"`
	Ret   json.RawMessage `json:"return"`
	Error *struct {
		Desc string `json:"desc"`
	} `json:"error"`
	QMP json.RawMessage `json:"QMP"` // the greeting
}

// newQMP begins to read from conn; events are handed to on, in order.
func newQMP(conn net.Conn, on func(event string, data json.RawMessage)) *qmp {
	q := &qmp{conn: conn, back: make(chan qmpMessage, 1)}
	go q.read(on)
	return q
}

func (q *qmp) read(on func(string, json.RawMessage)) {
	defer close(q.back)
	dec := json.NewDecoder(q.conn)
	for {
		var m qmpMessage
		if err := dec.Decode(&m); err != nil {
			return
		}
		switch {
		case m.Event != "":
			on(m.Event, m.Data)
		case m.QMP == nil:
			q.back <- m
		}
	}
}

// do runs a command of QMP.
func (q *qmp) do(ctx context.Context, command string, args any) (json.RawMessage, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	line, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, args})
	if err != nil {
		return nil, err
	}
	if _, err := q.conn.Write(append(line, '\n')); err != nil {
		return nil, fmt.Errorf("qmp %s: %w", command, err)
	}
	select {
	case m, ok := <-q.back:
		if !ok {
			return nil, fmt.Errorf("qmp %s: QEMU has ended", command)
		}
		if m.Error != nil {
			return nil, fmt.Errorf("qmp %s: %w", command, errors.New(m.Error.Desc))
		}
		return m.Ret, nil
	case <-ctx.Done():
		// The answer would be taken for that of the next command.
		q.conn.Close()
		return nil, fmt.Errorf("qmp %s: %w", command, context.Cause(ctx))
	}
}
