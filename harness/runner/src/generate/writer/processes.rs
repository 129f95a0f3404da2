//! Steps that begin and end processes.

use scenario::{Arg, Call, Expect, Name};

use super::super::rolls::Roll;
use super::{Writer, pick};

const MAX_CHILDREN: usize = 2;

impl Writer {
    /// The child has what the main process has, under the same numbers.
    pub(super) fn fork(&mut self) {
        if self
            .steps
            .iter()
            .filter(|step| step.call == Call::Fork)
            .count()
            == MAX_CHILDREN
        {
            return;
        }
        let name = Name(["p", "q"][self.children.len() % 2].to_owned());
        let is_taken = self
            .steps
            .iter()
            .any(|step| step.expect == Expect::Bind(name.clone()));
        if is_taken {
            return;
        }
        if self
            .step(None, Call::Fork, Vec::new(), Expect::Bind(name.clone()))
            .is_some()
        {
            let of_main = |list: &[(Option<Name>, Name)]| -> Vec<(Option<Name>, Name)> {
                let own = list.iter().filter(|(process, _)| process.is_none());
                own.map(|(_, fd)| (Some(name.clone()), fd.clone()))
                    .collect()
            };
            for list in self.descriptors() {
                let inherited = of_main(list);
                list.extend(inherited);
            }
            self.children.push(name);
        }
    }

    pub(super) fn exit(&mut self, roll: Roll) {
        let Some(name) = pick(&self.children, roll.first).cloned() else {
            return;
        };
        let process = Some(name.clone());
        if self
            .push(process.clone(), Call::ExitGroup, vec![Arg::Int(0)])
            .is_some()
        {
            for list in self.descriptors() {
                list.retain(|(owner, _)| *owner != process);
            }
            self.children.retain(|child| *child != name);
            self.push(None, Call::Wait4, vec![Arg::Name(name)]);
        }
    }

    /// Every list of what processes have open.
    fn descriptors(&mut self) -> [&mut Vec<(Option<Name>, Name)>; 4] {
        [
            &mut self.files,
            &mut self.groups,
            &mut self.fanotify_groups,
            &mut self.fifos,
        ]
    }
}
