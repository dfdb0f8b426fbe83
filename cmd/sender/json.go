// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"time"

	"netsysrq/auth"
	"netsysrq/internal/exchange"
)

// report is the JSON form of a result, version 1. Fields may be added; none
// changes its meaning.
type report struct {
	reportHead
	Rehearse bool `json:"rehearse"`
	exchangeReport
	Wait      *waitReport `json:"wait,omitempty"`
	LastDrill string      `json:"last_drill,omitempty"` // that proved both ways; of a status
}

// reportHead is what every JSON object begins with.
type reportHead struct {
	V         int      `json:"v"`
	Host      string   `json:"host"`
	Command   string   `json:"command"`
	Outcome   string   `json:"outcome"` // answered, accepted, refused, rebooted, unknown; of a drill: proved, unproved; error: of this side; not-asked
	Exit      int      `json:"exit"`
	Message   string   `json:"message"`
	Hints     []string `json:"hints,omitempty"`
	Key       string   `json:"key_id,omitempty"`
	Addresses []string `json:"addresses,omitempty"`
	Steps     string   `json:"steps,omitempty"`
}

// exchangeReport is one exchange with the host.
type exchangeReport struct {
	Request string       `json:"request_id,omitempty"`
	Reply   *replyReport `json:"reply,omitempty"`

	BootBefore string `json:"boot_before,omitempty"`
	BootAfter  string `json:"boot_after,omitempty"`
	RunSent    bool   `json:"run_sent"`
	OnePacket  bool   `json:"one_packet"`
	TimeStale  bool   `json:"time_stale"`
	Postdated  bool   `json:"postdated"`
	Forgotten  bool   `json:"forgotten"`
	DryRun     bool   `json:"host_dry_run"` // as a status said

	ElapsedMS        float64  `json:"elapsed_ms"`
	RunTookMS        *float64 `json:"run_took_ms,omitempty"` // from the first packet of the run
	RoundTripMS      *float64 `json:"round_trip_ms,omitempty"`
	ClockDifferenceS *float64 `json:"clock_difference_s,omitempty"` // host minus ours
	Sent             int      `json:"packets_sent"`
	Replies          int      `json:"replies"`
	Ignored          int      `json:"packets_ignored"`
	Network          string   `json:"network_error,omitempty"`
}

// replyReport is the reply that decided, or else the newest.
type replyReport struct {
	Result       string  `json:"result"`
	Executor     string  `json:"executor"`
	Repeat       bool    `json:"repeat"`
	Rehearsed    bool    `json:"rehearsed"`
	DryRun       bool    `json:"dry_run"`
	ClockTrusted bool    `json:"clock_trusted"`
	Armed        bool    `json:"armed"` // the kernel module answers, and would while processes hang
	Mask         uint8   `json:"step_mask"`
	NotRun       string  `json:"steps_not_run,omitempty"` // of what was accepted
	Causes       string  `json:"refused_for,omitempty"`   // of what was refused
	Time         string  `json:"time"`
	BootID       string  `json:"boot_id"`
	UptimeS      uint32  `json:"uptime_s"`
	LedgerAgeS   uint16  `json:"ledger_age_s"`
	Load1        float64 `json:"load1"`
	FreeMiB      uint32  `json:"free_mib"`
	KernelSysrq  *uint16 `json:"kernel_sysrq"`    // null: not known
	DaemonSilent *uint16 `json:"daemon_silent_s"` // null: never heard
}

func (r *result) json(code int, line string, hints []string) string {
	j := report{reportHead: r.head(code, line, hints), Rehearse: r.options.rehearse}
	if r.outcome != nil {
		j.exchangeReport = newExchangeReport(r.outcome, r.options.steps)
	}
	if r.follow != nil {
		j.Wait = newWaitReport(r.follow)
	}
	if r.options.command.name == "status" && !r.drilled.IsZero() {
		j.LastDrill = r.drilled.UTC().Format(time.RFC3339)
	}
	b, err := json.Marshal(j)
	if err != nil {
		panic(err) // no field can fail
	}
	return string(b)
}

func (r *result) head(code int, line string, hints []string) reportHead {
	o := r.options
	j := reportHead{V: 1, Host: r.host.Name, Command: o.command.name, Outcome: r.outcomeWord(), Exit: code, Message: line, Hints: hints,
		Key: idHex(r.key[:])}
	for _, a := range r.addrs {
		j.Addresses = append(j.Addresses, a.String())
	}
	if len(o.steps) > 0 {
		j.Steps = auth.FormatSteps(o.steps)
	}
	return j
}

func (r *result) outcomeWord() string {
	if errors.Is(r.err, errNotAsked) {
		return "not-asked"
	}
	if r.outcome == nil {
		return "error"
	}
	return r.outcome.Kind.String()
}

func newExchangeReport(x *exchange.Outcome, steps []auth.Step) exchangeReport {
	j := exchangeReport{
		Request:    idHex(x.Request[:]),
		BootBefore: idHex(x.Before[:]),
		BootAfter:  idHex(x.After[:]),
		RunSent:    x.RunSent,
		OnePacket:  x.OnePacket,
		TimeStale:  x.TimeStale,
		Postdated:  x.Postdated,
		Forgotten:  x.Forgotten,
		DryRun:     x.DryRun,
		ElapsedMS:  milliseconds(x.Elapsed),
		Sent:       x.Sent,
		Replies:    x.Replies,
		Ignored:    x.Ignored,
	}
	if x.RunSent {
		j.RunTookMS = new(milliseconds(x.RunTook))
	}
	if x.RoundTrip > 0 {
		j.RoundTripMS = new(milliseconds(x.RoundTrip))
	}
	if x.HaveDifference {
		j.ClockDifferenceS = new(x.Difference.Seconds())
	}
	if x.Unreachable != nil {
		j.Network = x.Unreachable.Error()
	}
	if x.Reply != nil {
		j.Reply = newReplyReport(x.Reply, steps)
	}
	return j
}

func newReplyReport(p *auth.Reply, steps []auth.Step) *replyReport {
	j := &replyReport{
		Result:       p.Result.String(),
		Executor:     p.Executor.String(),
		Repeat:       p.Flags&auth.Repeat != 0,
		Rehearsed:    p.Flags&auth.Rehearsed != 0,
		DryRun:       p.Flags&auth.DryRun != 0,
		ClockTrusted: p.Flags&auth.ClockTrusted != 0,
		Armed:        p.Flags&auth.Armed != 0,
		Mask:         p.Mask,
		Time:         time.Unix(0, int64(p.Time)).UTC().Format(time.RFC3339Nano),
		BootID:       hex.EncodeToString(p.Boot[:]),
		UptimeS:      p.Uptime,
		LedgerAgeS:   p.LedgerAge,
		Load1:        float64(p.Load) / 100,
		FreeMiB:      p.Free,
	}
	if p.Silent != never {
		j.DaemonSilent = &p.Silent
	}
	if p.Result == auth.Accepted {
		j.NotRun = masked(steps, p.Mask)
	} else {
		j.Causes = masked(steps, p.Mask)
	}
	if p.Sysrq != auth.SysrqUnknown {
		j.KernelSysrq = &p.Sysrq
	}
	return j
}

// idHex writes an id, and nothing for zero.
func idHex(b []byte) string {
	for _, c := range b {
		if c != 0 {
			return hex.EncodeToString(b)
		}
	}
	return ""
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
