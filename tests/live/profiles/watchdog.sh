# A tree is watched recursively by Python's watchdog, and a directory moves within it.
# Usage: sh watchdog.sh ROOT, where nothing is yet.
cd "$1" && side=$(mktemp -d) || exit 1
mkdir -p tree/a tree/b
/usr/bin/python3 -c '
import sys, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
class Handler(FileSystemEventHandler):
    def on_any_event(self, event):
        print(event.event_type, event.src_path, flush=True)
observer = Observer()
observer.schedule(Handler(), "tree", recursive=True)
observer.start()
print("ready", flush=True)
observer.join()
' >"$side/heard" &
pid=$!
until grep -q ready "$side/heard"; do :; done
mkdir tree/a/n
until grep -q 'created tree/a/n' "$side/heard"; do :; done
mv tree/a/n tree/b/n
until grep -q 'moved tree/a/n' "$side/heard"; do :; done
echo x >tree/b/n/f
until grep -q 'closed tree/b/n/f' "$side/heard"; do :; done
kill $pid
rm -r "$side"
