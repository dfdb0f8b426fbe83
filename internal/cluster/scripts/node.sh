#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# node.sh FOLDER: runs corosync and pacemaker. It is to be the first process of its
# namespaces; with it everything ends. FOLDER has what is laid over /etc and /usr,
# and gets what they write.
set -euo pipefail

folder=$1
hostname node1
mount --make-rprivate /
for d in /run /dev/shm; do mount -t tmpfs tmpfs "$d"; done
mkdir -p /run/lock

state=$folder/state
install -d "$state" "$state/corosync" "$state/log"
install -d -o hacluster -g haclient -m 750 "$state"/pacemaker{,/blackbox,/cib,/cores,/pengine}
install -d -o hacluster -g haclient -m 770 "$state/log/pacemaker"
mount --bind "$state/corosync" /var/lib/corosync
mount --bind "$state/pacemaker" /var/lib/pacemaker
mount --bind "$state/log" /var/log
# Last: what the folder is a path of may be below.
mount -t overlay overlay -o "lowerdir=$folder/usr:/usr" /usr
mount -t overlay overlay -o "lowerdir=$folder/etc:/etc" /etc

corosync -f &
until corosync-cfgtool -s >/dev/null 2>&1; do
	kill -0 $! || exit 1
	sleep 0.1
done
pacemakerd &
# Whichever ends, the node has failed.
wait -n
