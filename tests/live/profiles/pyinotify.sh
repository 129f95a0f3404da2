# A directory is watched by pyinotify, which adds what is made in it by itself.
# Usage: sh pyinotify.sh ROOT, where nothing is yet.
cd "$1" && side=$(mktemp -d) || exit 1
mkdir dir
/usr/bin/python3 -W ignore -c '
import pyinotify
manager = pyinotify.WatchManager()
mask = pyinotify.IN_CREATE | pyinotify.IN_MODIFY | pyinotify.IN_DELETE | pyinotify.IN_CLOSE_WRITE
def show(event):
    print(event.maskname, event.pathname, flush=True)
notifier = pyinotify.Notifier(manager, default_proc_fun=show)
manager.add_watch("dir", mask, rec=True, auto_add=True)
print("ready", flush=True)
notifier.loop()
' >"$side/heard" &
pid=$!
until grep -q ready "$side/heard"; do :; done
mkdir dir/sub
until grep -q '^inotify wd:2' /proc/$pid/fdinfo/* 2>/dev/null; do :; done
echo x >dir/sub/f
until grep -q 'IN_CLOSE_WRITE .*f$' "$side/heard"; do :; done
rm dir/sub/f
until grep -q 'IN_DELETE .*f$' "$side/heard"; do :; done
kill $pid
rm -r "$side"
