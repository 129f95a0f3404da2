# A tree is watched recursively, and grows while it is watched.
# Usage: sh inotifywait.sh ROOT, where nothing is yet.
cd "$1" && side=$(mktemp -d) || exit 1
mkdir -p top/sub
inotifywait --monitor --quiet --recursive top >"$side/heard" &
pid=$!
until grep -q '^inotify wd:2' "/proc/$pid/fdinfo/3" 2>/dev/null; do :; done
mkdir top/sub/new
until [ "$(grep -c '^inotify' "/proc/$pid/fdinfo/3")" -eq 3 ]; do :; done
echo x >top/sub/new/f
until grep -q 'new/ CLOSE_WRITE' "$side/heard"; do :; done
mv top/sub/new top/moved
until grep -q 'MOVED_TO,ISDIR moved' "$side/heard"; do :; done
kill $pid
rm -r "$side"
