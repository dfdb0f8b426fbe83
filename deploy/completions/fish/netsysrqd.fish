# SPDX-License-Identifier: GPL-2.0-only
# fish completion for netsysrqd(8)

function __netsysrqd_is
    set -l words (commandline -opc)
    set -l found
    set -l value no
    for w in $words[2..-1]
        if test $value = yes
            set value no
            continue
        end
        switch $w
            case -c --config -f --file -a --allow
                set value yes
            case '-*'
            case '*'
                set -a found $w
        end
    end
    switch "$found[1]"
        case rules keys
            test "$argv" = "$found[1..2]"
        case '*'
            test "$argv" = "$found[1]"
    end
end

complete -c netsysrqd -f
complete -c netsysrqd -n 'not __netsysrqd_is help; and not __netsysrqd_is version' -s c -l config -rF -d 'Configuration'
complete -c netsysrqd -n 'not __netsysrqd_is help; and not __netsysrqd_is version' -s h -l help -d 'Print help'
complete -c netsysrqd -n "__netsysrqd_is ''" -s V -l version -d 'Print the version'

complete -c netsysrqd -n "__netsysrqd_is ''" -a run -d 'The daemon'
complete -c netsysrqd -n "__netsysrqd_is ''" -a check -d 'Say whether this host would obey'
complete -c netsysrqd -n "__netsysrqd_is ''" -a status -d 'What the kernel module says of itself'
complete -c netsysrqd -n "__netsysrqd_is ''" -a rules -d 'The firewall rules'
complete -c netsysrqd -n "__netsysrqd_is ''" -a keys -d 'The operators of this host'
complete -c netsysrqd -n "__netsysrqd_is ''" -a arm -d 'Load the module, give it the keys and apply the rules'
complete -c netsysrqd -n "__netsysrqd_is ''" -a disarm -d 'Undo that'
complete -c netsysrqd -n "__netsysrqd_is ''" -a load-keys -d 'Make the module hold the keys of this host'
complete -c netsysrqd -n "__netsysrqd_is ''" -a help -d 'Print help'
complete -c netsysrqd -n "__netsysrqd_is ''" -a version -d 'Print the version'
complete -c netsysrqd -n '__netsysrqd_is help; and not string match -q -- "-*" (commandline -ct)' -a 'run check status rules keys arm disarm load-keys'

complete -c netsysrqd -n '__netsysrqd_is check' -l json -d 'Print JSON'
complete -c netsysrqd -n '__netsysrqd_is check' -s q -l quiet -d 'Print nothing'

complete -c netsysrqd -n '__netsysrqd_is status' -l json -d 'Print JSON'
complete -c netsysrqd -n '__netsysrqd_is status' -l events -d 'Print the record of what the module did'

complete -c netsysrqd -n '__netsysrqd_is rules' -a print -d 'Print the rules'
complete -c netsysrqd -n '__netsysrqd_is rules' -a apply -d 'Put them in place'
complete -c netsysrqd -n '__netsysrqd_is rules' -a remove -d 'Take them out'
complete -c netsysrqd -n '__netsysrqd_is rules' -a watch -d 'Keep them in place'
complete -c netsysrqd -n '__netsysrqd_is rules print' -s 4 -l ipv4 -d 'IPv4 only'
complete -c netsysrqd -n '__netsysrqd_is rules print' -s 6 -l ipv6 -d 'IPv6 only'

complete -c netsysrqd -n '__netsysrqd_is keys' -a add -d 'Add the key of an operator'
complete -c netsysrqd -n '__netsysrqd_is keys' -a list -d 'List the keys'
complete -c netsysrqd -n '__netsysrqd_is keys' -a remove -d 'Remove a key'
complete -c netsysrqd -n '__netsysrqd_is keys add' -s f -l file -rF -d 'Read the line from a file'
complete -c netsysrqd -n '__netsysrqd_is keys add' -s a -l allow -x -d 'SysRq keys that the operator may use'
complete -c netsysrqd -n '__netsysrqd_is keys add; or __netsysrqd_is keys remove' -l no-restart -d 'Leave the units alone'
complete -c netsysrqd -n '__netsysrqd_is keys list' -l json -d 'Print JSON'
