# A log is followed by name through a rotation.
# Usage: sh tail.sh ROOT, where nothing is yet.
cd "$1" && side=$(mktemp -d) || exit 1
echo one >log
tail -F log >"$side/shown" 2>/dev/null &
pid=$!
until grep -q '^inotify wd:2' /proc/$pid/fdinfo/* 2>/dev/null; do :; done
echo two >>log
until grep -q two "$side/shown"; do :; done
mv log log.1
echo three >log
until grep -q three "$side/shown"; do :; done
rm log.1
echo four >>log
until grep -q four "$side/shown"; do :; done
kill $pid
rm -r "$side"
