//! A vector whose elements do not move when it grows.

use std::ops::{Index, IndexMut};

/// Elements per chunk.
pub(crate) const CHUNK: usize = 64;

/// A vector in chunks. An insertion that grows it moves no elements: with a million of them, that
/// would take milliseconds, under a lock, and for a while half of the memory would lie idle.
#[derive(Debug)]
pub(crate) struct Chunks<S> {
    chunks: Vec<Vec<S>>,
    len: usize,
}

impl<S> Chunks<S> {
    pub(crate) const fn new() -> Self {
        Self { chunks: Vec::new(), len: 0 }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Appends an element. Returns its index.
    pub(crate) fn push(&mut self, element: S) -> u32 {
        let index = self.len;
        if index.is_multiple_of(CHUNK) {
            self.chunks.push(Vec::with_capacity(CHUNK));
        }
        self.chunks[index / CHUNK].push(element);
        self.len += 1;
        // More than four billion elements do not fit into memory.
        index as u32
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, index: u32) -> Option<&mut S> {
        self.chunks.get_mut(index as usize / CHUNK)?.get_mut(index as usize % CHUNK)
    }

    #[cfg(all(test, not(rampart_loom)))]
    pub(crate) fn is_unallocated(&self) -> bool {
        self.chunks.capacity() == 0
    }
}

impl<S> IntoIterator for Chunks<S> {
    type Item = S;
    type IntoIter = std::iter::Flatten<std::vec::IntoIter<Vec<S>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.chunks.into_iter().flatten()
    }
}

impl<S> Index<u32> for Chunks<S> {
    type Output = S;

    #[inline]
    fn index(&self, index: u32) -> &S {
        &self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}

impl<S> IndexMut<u32> for Chunks<S> {
    #[inline]
    fn index_mut(&mut self, index: u32) -> &mut S {
        &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK]
    }
}
