//! Bind mounts that stand at a step: one object is then reached, and called, by several paths.

use scenario::{Bytes, Call, Object, Step};

const MS_BIND: u64 = 0x1000;

/// Target and source of each, in the order that they were made.
#[derive(Clone, Debug, Default)]
pub(super) struct Binds(Vec<(Vec<u8>, Vec<u8>)>);

impl Binds {
    /// Those that these steps leave. Paths count from the root of the world.
    pub(super) fn after(steps: &[Step]) -> Self {
        let mut binds = Vec::new();
        for step in steps {
            match step.call {
                Call::Mount if step.flags(3) & MS_BIND != 0 => {
                    let source = step.bytes(0).unwrap_or_default();
                    binds.push((step.path(1).to_vec(), source.to_vec()));
                }
                Call::Umount2 => {
                    let gone = binds.iter().rposition(|(target, _)| target == step.path(0));
                    gone.map(|index| binds.remove(index));
                }
                _ => {}
            }
        }
        Self(binds)
    }

    /// The object by the path that it has without them.
    pub(super) fn resolve(&self, object: &Object) -> Object {
        match object {
            Object::Path(path) => Object::Path(self.path(path)),
            Object::Ghost(path) => Object::Ghost(self.path(path)),
            Object::Unnamed(_) | Object::Other(_) => object.clone(),
        }
    }

    fn path(&self, path: &Bytes) -> Bytes {
        let mut path = path.0.clone();
        for (target, source) in self.0.iter().rev() {
            let below = path.strip_prefix(target.as_slice());
            if let Some(below) = below.filter(|below| below.is_empty() || below[0] == b'/') {
                path = [source.as_slice(), below].concat();
            }
        }
        Bytes(path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_below_a_bind_mount_is_that_of_its_source() {
        let text = "\
# Mounts come and go.
mount(\"d\", \"one\", NULL, MS_BIND, NULL)
mount(\"one/s\", \"two\", NULL, MS_BIND, NULL)
mount(\"d\", \"three\", NULL, MS_BIND, NULL)
umount2(\"three\", 0)
";
        let scenario = scenario::parse(text).expect("the text is sound").scenario;
        let binds = Binds::after(&scenario.steps);
        let check = |path: &str, expected: &str| {
            let resolved = binds.resolve(&Object::Path(Bytes::from(path)));
            assert_eq!(resolved, Object::Path(Bytes::from(expected)));
        };
        check("one", "d");
        check("one/f", "d/f");
        check("onetwo/f", "onetwo/f");
        check("two/f", "d/s/f");
        check("three/f", "three/f");
    }
}
