# A whole mount is watched by fatrace: ROOT has to be one of its own.
# Usage: sh fatrace.sh ROOT, where nothing is yet.
cd "$1" && side=$(mktemp -d) || exit 1
mkdir dir
fatrace --current-mount >"$side/heard" &
pid=$!
until grep -q '^fanotify mnt_id\|^fanotify sdev' /proc/$pid/fdinfo/* 2>/dev/null; do :; done
echo x >dir/f
until grep -q 'dir/f' "$side/heard"; do :; done
cat dir/f >/dev/null
until grep -q ' R.* .*dir/f' "$side/heard"; do :; done
kill $pid
rm -r "$side"
