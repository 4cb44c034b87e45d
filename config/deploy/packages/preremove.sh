#!/bin/sh
# Before the package is removed ("remove" from dpkg, 0 from rpm), or replaced by another version, which stops nothing.
set -e
case ${1:-} in remove | 0) ;; *) exit 0 ;; esac
[ -d /run/systemd/system ] || exit 0
systemctl disable --now dragontls.service dragontls.socket dragontls-admin.socket
