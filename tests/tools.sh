#!/usr/bin/env bash
# Install, with apt-get, the real clients and servers that the tests drive: only what is missing.
# Without root or apt it says what is missing; that is an error only in CI (CI=true).
set -euo pipefail

declare -A package_of=(
  [skopeo]=skopeo [buildah]=buildah [podman]=podman [ctr]=containerd
  [docker-registry]=docker-registry [busybox]=busybox-static [postgres]=postgresql
  [htpasswd]=apache2-utils [strace]=strace [wrk]=wrk [hey]=hey
  [ip]=iproute2 [nft]=nftables
)
PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin" # where a user's PATH may not reach

have() {
  case $1 in
    busybox) command -v busybox && ! ldd "$(command -v busybox)" ;; # images need the static one
    postgres) command -v postgres || compgen -G '/usr/lib/postgresql/*/bin/postgres' ;;
    *) command -v "$1" ;;
  esac >/dev/null 2>&1
}

missing=()
for command in "${!package_of[@]}"; do
  have "$command" || missing+=("${package_of[$command]}")
done
((${#missing[@]})) || exit 0

if ((EUID != 0)) || ! command -v apt-get >/dev/null; then
  echo "Missing: ${missing[*]}. As root on Debian or Ubuntu, \`make tools\` installs them." >&2
  [[ ${CI:-} != true ]]
  exit
fi

echo "Installing ${missing[*]}"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
guard=/usr/sbin/policy-rc.d # while it answers 101, packages do not start their services
guarded=
trap 'rm -f "$log" ${guarded:+"$guard"}' EXIT
if [[ ! -e $guard ]]; then
  guarded=yes
  printf '#!/bin/sh\nexit 101\n' >"$guard"
  chmod +x "$guard"
fi

install() {
  local apt=(apt-get --quiet --yes -o Acquire::Retries=3 -o DPkg::Lock::Timeout=300)
  "${apt[@]}" update && "${apt[@]}" install --no-install-recommends "${missing[@]}"
} >"$log" 2>&1 </dev/null

for pause in 5 15 0; do
  if install; then
    installed=yes
    break
  fi
  sleep "$pause"
done
if [[ -z ${installed:-} ]]; then
  tail -n 20 "$log" >&2
  echo "Could not install ${missing[*]}" >&2
  exit 1
fi

# Nor may they start at the next boot: tests start their own, on ports of their own.
if [[ -d /run/systemd/system ]]; then
  for package in "${missing[@]}"; do
    case $package in
      containerd | docker-registry | postgresql) systemctl disable --now --quiet "$package" || true ;;
    esac
  done
fi
