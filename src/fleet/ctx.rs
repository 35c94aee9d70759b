//! What all readers of the fleet file share: the source, the directory, and the list of what is wrong, so that all of
//! it can be shown at once.

use std::path::{Path, PathBuf};

use super::problem::{Problem, Source, Span};

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    /// The value.
    pub(super) value: T,
    /// Where it stands in the file.
    pub(super) span: Span,
}

impl<T> At<T> {
    /// The same place with another value.
    pub(super) fn with<U>(&self, value: U) -> At<U> {
        At { value, span: self.span.clone() }
    }
}

/// What all readers share: the source and what was found so far.
pub(super) struct Ctx<'a> {
    source: Source<'a>,
    /// The directory that relative paths start from; absolute.
    base: PathBuf,
    found: Vec<Problem>,
    /// Lines on which the syntax is broken: what was recovered from them is not judged.
    broken: Vec<usize>,
}

impl<'a> Ctx<'a> {
    /// Starts with an empty list.
    pub(super) fn new(source: Source<'a>, base: PathBuf) -> Self {
        Self { source, base, found: Vec::new(), broken: Vec::new() }
    }

    /// Everything found.
    pub(super) fn finish(self) -> Vec<Problem> {
        self.found
    }

    /// The file's syntax is broken here.
    pub(super) fn syntax(&mut self, span: &Span, message: &str, fix: &str) {
        let p = self.source.problem(span, message, fix);
        self.broken.push(p.line);
        self.found.push(p);
    }

    /// Something is wrong at `span`.
    pub(super) fn error(&mut self, span: &Span, message: &str, fix: &str) {
        self.add(self.source.problem(span, message, fix));
    }

    /// Something at `span` is probably not what was meant.
    pub(super) fn warn(&mut self, span: &Span, message: &str, fix: &str) {
        self.add(self.source.problem(span, message, fix).warning());
    }

    /// As [`Ctx::error`], for a line with values that must not be shown.
    pub(super) fn error_unseen(&mut self, span: &Span, message: &str, fix: &str) {
        self.add(self.source.problem(span, message, fix).without_excerpt());
    }

    /// As [`Ctx::warn`], for a line with values that must not be shown.
    pub(super) fn warn_unseen(&mut self, span: &Span, message: &str, fix: &str) {
        self.add(self.source.problem(span, message, fix).warning().without_excerpt());
    }

    /// Something is wrong that may follow from what is missing elsewhere: said only when the syntax is sound.
    pub(super) fn mismatch(&mut self, span: &Span, message: &str, fix: &str) {
        if self.broken.is_empty() {
            self.error(span, message, fix);
        }
    }

    /// A problem that was found in another file.
    pub(super) fn add(&mut self, problem: Problem) {
        if !self.broken.contains(&problem.line) {
            self.found.push(problem);
        }
    }

    /// Whether anything found so far stops the file from being used.
    pub(super) fn syntax_is_sound(&self) -> bool {
        self.broken.is_empty()
    }

    /// The line of a place, for messages that name a second place.
    pub(super) fn line(&self, span: &Span) -> usize {
        self.source.line(span.start)
    }

    /// `written` as an absolute path; relative ones start from the file's directory.
    pub(super) fn resolve(&self, written: &str) -> PathBuf {
        let joined = self.base.join(written);
        std::path::absolute(&joined).unwrap_or(joined)
    }
}

/// The directory that relative paths in `file` start from.
pub(super) fn base_of(file: &Path) -> PathBuf {
    file.parent().map(Path::to_path_buf).unwrap_or_default()
}
