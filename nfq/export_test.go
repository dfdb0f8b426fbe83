// SPDX-License-Identifier: GPL-2.0-only

package nfq

import "golang.org/x/sys/unix"

// Packet builders for package nfq_test.
var (
	BuildUDP       = udp
	BuildIPv4      = ipv4
	BuildIPv6      = ipv6
	BuildExtension = extension
	BuildWith      = with
)

// OpenSlowly is Open with a pause after the last acknowledgement, while the
// filter still hides packets.
func OpenSlowly(cfg Config, pause func()) (*Queue, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	s, err := register(&cfg)
	if err != nil {
		return nil, err
	}
	pause()
	if err := s.start(&cfg); err != nil {
		s.close()
		return nil, err
	}
	return newQueue(cfg, s), nil
}

// Unbind gives the queue back behind the reader's back.
func (q *Queue) Unbind() error {
	const attrConfigCommand, unbind = 1, 2 // NFQA_CFG_CMD, NFQNL_CFG_CMD_UNBIND
	request := append(make([]byte, nlmsgHeaderLen+nfgenmsgLen),
		attribute(attrConfigCommand, unbind, 0, 0, 0)...)
	putHeader(request, msgConfig, unix.NLM_F_ACK, seqProbe, q.cfg.Queue)
	return q.socket.send(request)
}
