# A tree is watched recursively by Node, and a file moves within it.
# Usage: sh node.sh ROOT, where nothing is yet.
cd "$1" && side=$(mktemp -d) || exit 1
mkdir -p tree/a tree/b
node -e '
const fs = require("fs");
fs.watch("tree", { recursive: true }, (what, name) => console.log(what, name));
' >"$side/heard" &
pid=$!
watches() { cat /proc/$pid/fdinfo/* 2>/dev/null | grep -c '^inotify wd'; }
until [ "$(watches)" -eq 3 ]; do :; done
echo x >tree/a/x
until [ "$(watches)" -eq 4 ] && grep -q 'a/x' "$side/heard"; do :; done
mv tree/a/x tree/b/y
until grep -q 'b/y' "$side/heard"; do :; done
rm tree/b/y
until [ "$(watches)" -eq 3 ]; do :; done
kill $pid
rm -r "$side"
