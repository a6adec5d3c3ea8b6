#!/bin/sh
# It is started once it is configured: systemctl enable --now switchyard. An update restarts it.
set -e
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
case "$1" in
configure) [ -z "$2" ] || systemctl try-restart switchyard.service ;; # deb: $2 is the version before
1) ;;                                                                 # rpm: the first installation
*) systemctl try-restart switchyard.service ;;
esac
