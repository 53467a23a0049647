#!/bin/bash
# Runs as the first process of its own network, mount and process namespaces, started by
# ../real_servers.sh: lays out the file system, starts every server, then runs the checks.
# All paths below /srv, /etc, /run, /var/lib, /var/log and /var/spool are private to this run.
set -euo pipefail

scratch=$1 unpacked=$2
shift 2
config=/srv/helpers/config

main() {
	private_file_system
	accounts
	addresses
	certificates
	secrets
	dkim_keys
	start_servers
	versions
	status=0
	PYTHONDONTWRITEBYTECODE=1 PYTHONPATH=/srv/helpers:/srv/python python3 -m checks "$@" || status=$?
	cp -r /srv/log /srv/mail /srv/work /srv/kept/ 2>/dev/null || true
	exit $status
}

private_file_system() {
	mount --make-rprivate /
	mount --bind "$scratch" /srv
	mount -t overlay overlay -o "lowerdir=$unpacked/usr:/usr" /usr
	mkdir /srv/etc /srv/log /srv/mail /srv/tls /srv/work /srv/sink /srv/greylist
	cp -a /etc/. /srv/etc
	cp -a "$unpacked/etc/." /srv/etc
	mount --bind /srv/etc /etc
	for directory in /run /var/lib /var/log /var/spool; do
		mount -t tmpfs -o mode=755 tmpfs $directory
	done
	mkdir -p /srv/log/exim /var/spool/postfix /var/lib/postfix /var/lib/opensmtpd/empty /var/spool/smtpd /var/spool/exim4 /var/log/exim4 \
		/run/dovecot /var/lib/dovecot /run/nsd /var/lib/nsd /etc/exim4
	chmod 711 /var/spool/smtpd
	cp $config/main.cf $config/master.cf /etc/postfix/
	cp $config/exim4.conf /etc/exim4/exim4.conf
	chmod 644 /etc/exim4/exim4.conf
	echo "127.0.0.1 localhost mail.dispatch.example" >/etc/hosts
	echo "127.0.0.20 exim-by-hosts-file.example" >>/etc/hosts
	echo "nameserver 127.0.0.53" >/srv/etc/resolv.conf.private
	rm -f /etc/resolv.conf
	mv /srv/etc/resolv.conf.private /etc/resolv.conf
}

# NAME UID: a system account with a group of its own, where the host has none.
account() {
	grep -q "^$1:" /etc/group || echo "$1:x:$2:" >>/etc/group
	grep -q "^$1:" /etc/passwd ||
		echo "$1:x:$2:$(sed -n "s/^$1:[^:]*:\([0-9]*\):.*/\1/p" /etc/group):$1:/nonexistent:/usr/sbin/nologin" >>/etc/passwd
}

accounts() {
	local uid=60100
	for name in postfix postdrop Debian-exim opensmtpd opensmtpq dovecot dovenull unbound nsd vmail dispatch; do
		account $name $uid
		uid=$((uid + 1))
	done
	# OpenSMTPD delivers only to accounts that have a home and a shell.
	sed -i 's|^\(vmail:.*\):/nonexistent:.*|\1:/srv/mail:/bin/sh|' /etc/passwd
	sed -i "s/@VMAIL_UID@/$(id -u vmail)/; s/@VMAIL_GID@/$(id -g vmail)/" /etc/postfix/main.cf
	mkdir /srv/mail/postfix /srv/mail/exim /srv/mail/opensmtpd
	chown -R vmail:vmail /srv/mail
	chown Debian-exim:Debian-exim /var/spool/exim4 /var/log/exim4 /srv/log/exim
	chown postfix:postfix /var/lib/postfix
	chown vmail:vmail /srv/greylist
	chown nsd:nsd /run/nsd /var/lib/nsd
	chown dispatch:dispatch /srv/work
}

# Addresses of documentation networks stand for hosts elsewhere: to the daemon they are no loopback
# addresses, although they never leave this interface.
addresses() {
	ip link set lo up
	for address in 192.0.2.10 192.0.2.11 192.0.2.12 192.0.2.30; do
		ip address add $address/32 dev lo
	done
	# named listens only at addresses that an interface has, while the other servers take any of the loopback network.
	ip address add 127.0.0.57/32 dev lo
	# OpenSMTPD listens with a backlog of 5. Under SYN cookies the kernel forgets a connection that does
	# not fit, while its client, to whom the server has to speak first, waits out the greeting timeout.
	echo 0 >/proc/sys/net/ipv4/tcp_syncookies
	ip -6 address add 2001:db8::30/128 dev lo nodad
}

certificates() (
	cd /srv/tls
	openssl req -x509 -newkey rsa:2048 -nodes -days 2 -keyout ca.key -out ca.pem -subj "/CN=Test roots" \
		-addext basicConstraints=critical,CA:TRUE -addext keyUsage=critical,keyCertSign 2>/dev/null
	leaf mail rsa:2048 "DNS:mx.postfix.example,DNS:mx.exim.example,DNS:far.postfix.example,IP:192.0.2.10"
	leaf other rsa:2048 "DNS:somebody.else.example"
	# An elliptic key here, so that both kinds are met. OpenSMTPD wants its key read by root alone.
	leaf opensmtpd ec:<(openssl ecparam -name prime256v1) "DNS:mx.opensmtpd.example,IP:127.0.0.30"
	chmod 644 -- *.pem
	chown root:Debian-exim mail.key
	chmod 640 mail.key
	chmod 600 opensmtpd.key
)

# NAME KEY ALTERNATIVE-NAMES: a key and a certificate from the test roots.
leaf() {
	openssl req -newkey "$2" -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$1" 2>/dev/null
	openssl x509 -req -in "$1.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -out "$1.pem" \
		-extfile <(printf 'basicConstraints=CA:FALSE\nextendedKeyUsage=serverAuth\nsubjectAltName=%s\n' "$3") 2>/dev/null
}

# The accounts that the checks log in with: alice, and one whose password has the signs that a remote
# specification uses itself.
secrets() {
	printf '%s\n' 'alice:{PLAIN}wonder land' "bob:{PLAIN.b64}$(printf %s 'a:b@c/d%' | base64)" >/srv/users.dovecot
	printf 'alice %s\n' "$(openssl passwd -6 "wonder land")" >/srv/users.opensmtpd
	chmod 644 /srv/users.*
}

# A key of each kind for mail of the sender, with the text of its record.
dkim_keys() (
	mkdir /srv/dkim && cd /srv/dkim
	openssl genpkey -algorithm ed25519 -out ed.pem
	openssl genpkey -algorithm rsa -pkeyopt rsa_keygen_bits:2048 -out rsa.pem 2>/dev/null
	# The key itself is the end of its encoding.
	printf 'v=DKIM1; k=ed25519; p=%s' "$(openssl pkey -in ed.pem -pubout -outform DER | tail -c 32 | base64 -w 0)" >ed.txt
	printf 'v=DKIM1; k=rsa; p=%s' "$(openssl pkey -in rsa.pem -pubout -outform DER | base64 -w 0)" >rsa.txt
	for selector in ed rsa; do
		echo "$selector._domainkey.postfix.example. TXT $(fold -w 200 $selector.txt | sed 's/.*/"&"/' | tr '\n' ' ')" >>zone
	done
	chmod 640 ./*.pem
	chgrp dispatch ./*.pem
)

# NAME COMMAND…: in the foreground of its own background job, output in its own log.
run() {
	local name=$1
	shift
	"$@" >>"/srv/log/$name.log" 2>&1 &
}

start_servers() {
	cat $config/root.zone /srv/dkim/zone >/srv/root.zone
	run nsd nsd -d -c $config/nsd.conf
	run unbound unbound -d -c $config/unbound.conf
	run dovecot dovecot -F -c $config/dovecot.conf
	run exim exim4 -bdf -q10m
	run opensmtpd /usr/sbin/smtpd -d -f $config/smtpd.conf
	postfix -c /etc/postfix start >>/srv/log/postfix-start.log 2>&1 || cat /srv/log/postfix-start.log
	mkdir /srv/sink/all /srv/sink/plain
	chown -R postfix /srv/sink
	sink=$(command -v smtp-sink)
	run sink-all $sink -u postfix -d "/srv/sink/all/%M." -h sink.example 127.0.0.40:25 200
	run sink-plain $sink -u postfix -8 -p -e -d "/srv/sink/plain/%M." -h sink.example 127.0.0.41:25 50
	run sink-dies $sink -u postfix -q data 127.0.0.42:25 50
	run sink-uncertain $sink -u postfix -q . 127.0.0.43:25 50
	run sink-refuses $sink -u postfix -f . 127.0.0.44:25 50
	run sink-busy $sink -u postfix -r mail 127.0.0.45:25 50
	run sink-closing $sink -u postfix -Q rcpt 127.0.0.46:25 50
	run sink-no-ehlo $sink -u postfix -f ehlo -d "/srv/sink/plain/%M." 127.0.0.47:25 50
}

versions() {
	echo "cmail-dispatchd: $(/srv/bin/cmail-dispatchd --version)"
	echo "Postfix $(postconf -h mail_version), Exim $(exim4 --version | sed -n 's/^Exim version \([^ ]*\).*/\1/p;q')," \
		"$(/usr/sbin/smtpd -h 2>&1 | sed -n 's/^version: *//p')," \
		"Dovecot $(dovecot --version)," \
		"Unbound $(unbound -V | sed -n 's/^Version //p'), $(nsd -v 2>&1 | sed -n '1s/^NSD version/NSD/p')," \
		"$(named -v | sed 's/ *(.*//'), $(dnsmasq -v | sed -n '1s/^\(Dnsmasq\) version \([^ ]*\).*/\1 \2/p')"
}

# The other script that is run like this one takes its functions from here.
[ "${BASH_SOURCE[0]}" != "$0" ] || main "$@"
