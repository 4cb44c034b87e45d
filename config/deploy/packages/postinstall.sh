#!/bin/sh
# After an installation or an update of the package. Nothing is started that did not run: there is no certificate yet.
set -e
systemd-sysusers dragontls.conf
chown root:dragontls /etc/dragontls
chmod 0750 /etc/dragontls
[ -d /run/systemd/system ] || exit 0
systemctl daemon-reload
# The socket units go on listening, so that an update refuses no connection.
systemctl try-restart dragontls.service
