# Sourced by deploy/quickstart and tests/run: which Debian packages they need, and how to get the missing ones.

build_packages="g++ cmake ninja-build ccache pkg-config libevent-dev libssl-dev liblmdb-dev libfmt-dev libyaml-cpp-dev \
nlohmann-json3-dev libcli11-dev libgmime-3.0-dev libcurl4-openssl-dev libldap-dev libzstd-dev libsodium-dev libidn2-dev"
trial_packages="postfix swaks python3 procps"
webmail_packages="roundcube-core roundcube-sqlite3 roundcube-plugins php-fpm php-cli php-sqlite3 php-curl php-intl php-mbstring php-xml nginx-light openssl"
test_packages="catch2 faketime systemd dpkg-dev file clang-14 libclang-rt-14-dev openssl curl python3 haproxy e2fsprogs iproute2 mount nftables slapd ldap-utils python3-ldap3 python3-lmdb python3-cryptography python3-fusepy python3-zstandard prometheus chromium isync dovecot-core dovecot-imapd dovecot-lmtpd"

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Installs what is missing of the packages named; quick and without network when nothing is.
install_missing() {
  missing=""
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q "install ok installed" || missing="$missing $package"
  done
  [ -z "$missing" ] && return 0
  echo "installing:$missing"
  # Servers are started by us, in folders of their own, and never by their packages.
  policy=/usr/sbin/policy-rc.d
  made_policy=no
  if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' | as_root tee "$policy" >/dev/null
    as_root chmod 755 "$policy"
    made_policy=yes
  fi
  result=0
  {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get update -qq &&
      as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
  } >"${TMPDIR:-/tmp}/holdfast-install.$$.log" 2>&1 || result=$?
  [ "$made_policy" = yes ] && as_root rm -f "$policy"
  if [ "$result" -ne 0 ]; then
    tail -n 20 "${TMPDIR:-/tmp}/holdfast-install.$$.log" >&2
    echo "cannot install:$missing" >&2
    echo "these are Debian 12 packages; check the network and /etc/apt/sources.list, then run this again" >&2
  fi
  rm -f "${TMPDIR:-/tmp}/holdfast-install.$$.log"
  return "$result"
}
