#!/bin/bash
# The first process of a guest. The kernel's command line has guest.name and guest.addr.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C.UTF-8
mount -o remount,noatime /
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
for d in /dev/shm /run /tmp; do mount -t tmpfs tmpfs $d; done
mkdir -p /run/lock /run/udev /run/rpcbind /run/sendsigs.omit.d /run/multipath /var/lib/nfs/sm /mnt
for w in $(cat /proc/cmdline); do
	case $w in guest.name=*) name=${w#*=} ;; guest.addr=*) addr=${w#*=} ;; esac
done
hostname "$name"
printf '127.0.0.1 localhost\n127.0.1.1 %s\n' "$name" >/etc/hosts
echo "InitiatorName=iqn.2026-11.example:$name" >/etc/iscsi/initiatorname.iscsi
ip link set lo up
ip addr add "$addr/24" dev vec0
ip link set vec0 up
/lib/systemd/systemd-udevd --daemon
udevadm trigger --action=add
udevadm settle --timeout=20
/host/inside serve -addr "$addr:7000" &
while :; do # as the first process it also buries orphans
	sleep 100000 &
	wait $!
done
