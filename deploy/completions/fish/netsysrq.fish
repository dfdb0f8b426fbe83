# SPDX-License-Identifier: GPL-2.0-only
# fish completion for netsysrq(1)

# Hosts and groups of the list of hosts, or else what fish knows of hosts.
function __netsysrq_hosts
    set -l dir $XDG_CONFIG_HOME
    test -n "$dir"; or set dir $HOME/.config
    set -l file $dir/netsysrq/hosts.toml
    if not test -r $file
        __fish_print_hostnames
        return
    end
    echo @all
    awk '
        function strip(s) { sub(/#.*/, "", s); gsub(/[][",\047]/, " ", s); return s }
        /^[ \t]*\[/ && !list {
            table = strip($0)
            gsub(/[ \t]/, "", table)
            if (table ~ /^hosts\./) print substr(table, 7)
            if (table ~ /^groups\./) print "@" substr(table, 8)
            next
        }
        table ~ /^groups\./ && /^[ \t]*hosts[ \t]*=/ { sub(/^[^=]*=/, ""); list = 1 }
        list {
            last = /\]/
            n = split(strip($0), name, " ")
            for (i = 1; i <= n; i++) print name[i]
            list = !last
        }' $file 2>/dev/null
end

set -l key enroll status send reboot cancel drill log run
set -l host status send reboot cancel drill log run
set -l run send reboot

complete -c netsysrq -f
complete -c netsysrq -s h -l help -d 'Print help'
complete -c netsysrq -n __fish_use_subcommand -l version -d 'Print the version'

complete -c netsysrq -n __fish_use_subcommand -a keygen -d 'Make your master key'
complete -c netsysrq -n __fish_use_subcommand -a enroll -d 'Print the line that makes a host know you'
complete -c netsysrq -n __fish_use_subcommand -a status -d 'Ask how hosts are'
complete -c netsysrq -n __fish_use_subcommand -a send -d 'Run SysRq keys'
complete -c netsysrq -n __fish_use_subcommand -a reboot -d 'Sync, remount read-only and reboot'
complete -c netsysrq -n __fish_use_subcommand -a cancel -d 'Drop what hosts still have to do'
complete -c netsysrq -n __fish_use_subcommand -a drill -d 'Rehearse, by the daemon and by the kernel'
complete -c netsysrq -n __fish_use_subcommand -a explain -d 'What SysRq keys do and cost'
complete -c netsysrq -n __fish_use_subcommand -a log -d 'Print the end of kernel logs'
complete -c netsysrq -n __fish_use_subcommand -a run -d 'Run SysRq keys and print what they print'
complete -c netsysrq -n __fish_use_subcommand -a help -d 'Explain a command'
complete -c netsysrq -n __fish_use_subcommand -a version -d 'Print the version'

complete -c netsysrq -n "__fish_seen_subcommand_from $key" -a '(__netsysrq_hosts)'
complete -c netsysrq -n '__fish_seen_subcommand_from help' -a 'keygen enroll status send reboot cancel drill explain log run help version hosts exit-codes'

complete -c netsysrq -n "__fish_seen_subcommand_from keygen $key" -l key -rF -d 'Master key'
complete -c netsysrq -n "__fish_seen_subcommand_from keygen $key" -l operator -x -d 'Your label'
complete -c netsysrq -n "__fish_seen_subcommand_from keygen $key" -s q -l quiet -d 'Nothing if it went well'
complete -c netsysrq -n "__fish_seen_subcommand_from $key" -l passphrase -d 'Ask for a passphrase'
complete -c netsysrq -n "__fish_seen_subcommand_from $key" -l passphrase-fd -x -d 'Read the passphrase from a file descriptor'
complete -c netsysrq -n "__fish_seen_subcommand_from $key" -l hosts -rF -d 'List of hosts'

complete -c netsysrq -n '__fish_seen_subcommand_from keygen' -l words -d 'Print a passphrase and save nothing'
complete -c netsysrq -n '__fish_seen_subcommand_from keygen' -l count -x -d 'Number of words'
complete -c netsysrq -n '__fish_seen_subcommand_from enroll' -l allow -x -d 'SysRq keys that the line proposes'

complete -c netsysrq -n "__fish_seen_subcommand_from $host" -l address -x -a '(__fish_print_hostnames)' -d 'Address or another name'
complete -c netsysrq -n "__fish_seen_subcommand_from $host" -l port -x -d 'UDP port'
complete -c netsysrq -n "__fish_seen_subcommand_from $host" -s 4 -l ipv4 -d 'Use IPv4 only'
complete -c netsysrq -n "__fish_seen_subcommand_from $host" -s 6 -l ipv6 -d 'Use IPv6 only'
complete -c netsysrq -n "__fish_seen_subcommand_from $host" -l timeout -x -d 'How long to try'
complete -c netsysrq -n "__fish_seen_subcommand_from $host" -l parallel -x -d 'At most so many hosts at once'
complete -c netsysrq -n "__fish_seen_subcommand_from $host explain" -l json -d 'Print JSON'
complete -c netsysrq -n "__fish_seen_subcommand_from $host" -s v -l verbose -d 'Tell of every packet'

complete -c netsysrq -n "__fish_seen_subcommand_from $run" -l rehearse -d 'Everything but the act'
complete -c netsysrq -n "__fish_seen_subcommand_from $run cancel" -l one-packet -d 'Send nothing but the one packet that needs a clock'
complete -c netsysrq -n "__fish_seen_subcommand_from $run" -s y -l yes -d 'Do not ask for confirmation'
complete -c netsysrq -n "__fish_seen_subcommand_from $run" -l dry-run -d 'Show the packets and send nothing'
complete -c netsysrq -n "__fish_seen_subcommand_from $run" -l wait -d 'Follow the machine until it is back'
complete -c netsysrq -n "__fish_seen_subcommand_from $run" -l rolling -x -d 'At most so many hosts at once'

complete -c netsysrq -n '__fish_seen_subcommand_from status' -l watch -d 'Ask again and again'
complete -c netsysrq -n '__fish_seen_subcommand_from drill' -l overdue -x -d 'List hosts without a drill for so long'

complete -c netsysrq -n '__fish_seen_subcommand_from log' -l tail -x -d 'How much of it, such as 64K'
complete -c netsysrq -n '__fish_seen_subcommand_from log' -l all -d 'All that is still there'
complete -c netsysrq -n '__fish_seen_subcommand_from log' -s f -l follow -d 'And then what comes'
