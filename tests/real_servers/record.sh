#!/bin/bash
# Runs inside the namespaces, started by ../record.sh: starts the servers of namespace.sh and some more, then records.
set -euo pipefail

. "$(dirname "$0")/namespace.sh"

record() {
	private_file_system
	accounts
	addresses
	certificates
	secrets
	cat $config/record-master.cf >>/etc/postfix/master.cf
	start_servers
	start_more_servers
	status=0
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/helpers python3 -m recording "$@" || status=$?
	cp -r /srv/log /srv/work /srv/kept/ 2>/dev/null || true
	exit $status
}

start_more_servers() {
	mkdir -p /run/dovecot-submission /etc/chasquid/domains/chasquid.example /etc/chasquid/certs/mx.chasquid.example /var/lib/chasquid
	run dovecot-submission dovecot -F -c $config/dovecot-submission.conf
	cp $config/chasquid.conf /etc/chasquid/chasquid.conf
	cp /srv/tls/mail.pem /etc/chasquid/certs/mx.chasquid.example/fullchain.pem
	cp /srv/tls/mail.key /etc/chasquid/certs/mx.chasquid.example/privkey.pem
	chasquid-util --configdir=/etc/chasquid user-add alice@chasquid.example "--password=wonder land" >>/srv/log/chasquid.log 2>&1
	run chasquid chasquid --config_dir=/etc/chasquid
	PYTHONPATH=$unpacked/python run aiosmtpd python3 /srv/helpers/recording/aiosmtpd_server.py
	NODE_PATH=$unpacked/node/node_modules run smtp-server node /srv/helpers/recording/smtp_server.js
}

record "$@"
