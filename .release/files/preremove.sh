#!/bin/sh
# deb says remove, rpm 0; both come here before an update, too.
set -e
[ -d /run/systemd/system ] || exit 0
case "$1" in
remove | 0) systemctl disable --now switchyard.service ;;
esac
