// SPDX-License-Identifier: GPL-2.0-only

package main

import (
	"netsysrq/auth"
	"netsysrq/cmd/responder/internal/metrics"
	"netsysrq/internal/version"
)

// putMetrics has the file of the configuration written, if there is one.
func (d *daemon) putMetrics() {
	if d.metricsFile != nil {
		d.metricsFile.Put(metrics.Text(d.families()))
	}
}

// families are what the daemon tells of itself. Counters begin with the daemon.
func (d *daemon) families() []metrics.Family {
	ignored := metrics.Family{Name: "netsysrqd_packets_ignored_total", Kind: metrics.Counter, Label: "reason",
		Help: "Packets that got no line of their own in the log, by reason."}
	for r := auth.ReasonDatagram; r < auth.ReasonNotAllowed; r++ {
		ignored.Samples = append(ignored.Samples, metrics.Sample{Of: r.String(), Number: float64(d.ignored[r])})
	}
	dropped := metrics.Family{Name: "netsysrqd_queue_dropped_packets_total", Kind: metrics.Counter, Label: "lane",
		Help: "Packets that the kernel dropped before the daemon saw them, because a queue was full or lost."}
	bound := metrics.Family{Name: "netsysrqd_queue_bound", Kind: metrics.Gauge, Label: "lane",
		Help: "Whether the daemon reads the queue."}
	for _, l := range d.lanes {
		dropped.Samples = append(dropped.Samples, metrics.Sample{Of: l.name, Number: float64(l.dropped)})
		bound.Samples = append(bound.Samples, metrics.Sample{Of: l.name, Number: metrics.Is(l.queue.Load() != nil)[0].Number})
	}
	list := []metrics.Family{
		{Name: "netsysrqd_build_info", Kind: metrics.Gauge, Label: "version", Help: "Always 1.",
			Samples: []metrics.Sample{{Of: version.String(), Number: 1}}},
		{Name: "netsysrqd_start_time_seconds", Kind: metrics.Gauge, Help: "When the daemon was started, in seconds since 1970.",
			Samples: metrics.One(d.started.Unix())},
		{Name: "netsysrqd_module_armed", Kind: metrics.Gauge,
			Help:    "Whether the daemon works with a kernel module that holds keys, so that this host obeys also while its processes hang.",
			Samples: metrics.Is(d.link.Attached())},
		{Name: "netsysrqd_keys", Kind: metrics.Gauge, Help: "Keys in force.", Samples: metrics.One(len(d.keys))},
		{Name: "netsysrqd_keys_complete", Kind: metrics.Gauge, Help: "Whether every key file of this machine is in force.",
			Samples: metrics.Is(d.keysComplete)},
		{Name: "netsysrqd_last_reload_successful", Kind: metrics.Gauge, Help: "Whether configuration and keys were taken when they were last read.",
			Samples: metrics.Is(d.reloaded)},
		{Name: "netsysrqd_dry_run", Kind: metrics.Gauge, Help: "Whether accepted requests are only gone through.", Samples: metrics.Is(d.cfg.DryRun)},
		{Name: "netsysrqd_clock_synchronised", Kind: metrics.Gauge, Help: "Whether the kernel calls its clock synchronised.",
			Samples: metrics.Is(d.synchronised)},
	}
	list = append(list, d.requests.Families()...)
	return append(list, ignored, bound, dropped,
		metrics.Family{Name: "netsysrqd_log_records_lost_total", Kind: metrics.Counter, Help: "Log records that nobody read in time.",
			Samples: metrics.One(d.log.Lost())},
		metrics.Family{Name: "netsysrqd_module_events_lost_total", Kind: metrics.Counter,
			Help: "Events of the kernel module that were overwritten before the daemon read them.", Samples: metrics.One(d.link.Lost())})
}
