//! Which removed names an image needs, and how long each has to be there. Found once for all: an
//! image may have very many.

use std::cmp::Reverse;
use std::collections::HashMap;

use crate::image::{Image, Object, Place, PlaceKind};

#[derive(Debug)]
pub(super) struct Uses {
    /// Of each place, what is open on it.
    files: HashMap<u32, Vec<usize>>,
    used: Vec<bool>,
    /// Its name is there until all are made.
    stays: Vec<bool>,
}

impl Uses {
    pub(super) fn of(image: &Image) -> Self {
        let n_places = image.places.len();
        let mut uses = Self {
            files: HashMap::new(),
            used: vec![false; n_places],
            stays: vec![false; n_places],
        };
        for (file, state) in image.files.iter().enumerate() {
            if let Some(Object::Place(place)) = state.object {
                uses.files.entry(place).or_default().push(file);
                uses.used[place as usize] = true;
            }
        }
        let directories = image.processes.iter().map(|it| it.working_directory);
        for place in directories.flatten() {
            uses.used[place as usize] = true;
        }
        uses.propagate(image);
        uses.keep_shared(image);
        uses
    }

    /// Whether a descriptor or a working directory holds it, or what was in it, if it is a directory.
    /// Without a holder it would be gone again at once.
    pub(super) fn is_used(&self, place: u32) -> bool {
        self.used[place as usize]
    }

    /// Whether something else is made by its name: what is in it, or another name of the inode, which
    /// takes none any more once it has lost the last.
    pub(super) fn stays(&self, place: u32) -> bool {
        self.stays[place as usize]
    }

    /// The open file descriptions of a place.
    pub(super) fn files(&self, place: u32) -> &[usize] {
        self.files.get(&place).map_or(&[], Vec::as_slice)
    }

    /// What is used needs the removed directories that it is in. What was in a directory whose path
    /// says so alone needs that from the second level on: the next one above it is there.
    fn propagate(&mut self, image: &Image) {
        let is_directory = |place: &Place| {
            let mode = image.inodes[place.inode as usize].mode;
            place.kind() == PlaceKind::Gone && mode & libc::S_IFMT == libc::S_IFDIR
        };
        let mut by_path: HashMap<&[u8], Vec<usize>> = HashMap::new();
        for (index, place) in image.places.iter().enumerate() {
            if is_directory(place) {
                by_path.entry(&place.path).or_default().push(index);
            }
        }
        let is_removed =
            |place: &Place| place.kind() != PlaceKind::Named && place.kind() != PlaceKind::Hidden;
        let mut order: Vec<usize> = (0..image.places.len()).collect();
        order.retain(|&index| is_removed(&image.places[index]));
        // The deepest first; a file that never had a name has the path of its directory.
        order.sort_by_key(|&index| {
            let place = &image.places[index];
            (Reverse(place.path.len()), place.kind() == PlaceKind::Gone)
        });
        for index in order {
            let place = &image.places[index];
            if !self.used[index] {
                continue;
            }
            if let Some(parent) = place.parent.map(|parent| parent as usize) {
                self.used[parent] |= is_directory(&image.places[parent]);
                self.stays[parent] = true;
            }
            if by_path.is_empty() {
                continue;
            }
            let slashes = (1..place.path.len())
                .rev()
                .filter(|&at| place.path[at] == b'/');
            let is_unnamed = place.kind() == PlaceKind::Unnamed;
            let own = is_unnamed.then_some(place.path.len());
            for (level, end) in own.into_iter().chain(slashes).enumerate() {
                let level = if is_unnamed { level } else { level + 1 };
                for &above in by_path.get(&place.path[..end]).into_iter().flatten() {
                    self.used[above] |= place.parent.is_none() && level > 1;
                    self.stays[above] |= above != index;
                }
            }
        }
    }

    fn keep_shared(&mut self, image: &Image) {
        let mut n_names: HashMap<u32, usize> = HashMap::new();
        let used = || {
            (0..)
                .zip(&image.places)
                .filter(|(index, _): &(usize, _)| self.used[*index])
        };
        for (_, place) in used() {
            *n_names.entry(place.inode).or_default() += 1;
        }
        let shared: Vec<usize> = used()
            .filter(|(_, place)| n_names[&place.inode] > 1)
            .map(|(index, _)| index)
            .collect();
        for index in shared {
            self.stays[index] = true;
        }
    }
}
