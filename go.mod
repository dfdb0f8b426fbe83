module netsysrq

go 1.26

require (
	github.com/florianl/go-nfqueue/v2 v2.1.0
	github.com/mdlayher/netlink v1.11.2
	golang.org/x/crypto v0.58.0
	golang.org/x/net v0.62.0
	golang.org/x/sys v0.49.0
)
