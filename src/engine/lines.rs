//! From the bytes that an instance writes to lines of bounded length.

/// Longest line kept, in bytes; the rest of it is dropped.
const LINE_MAX: usize = 16 * 1024;

/// Cuts a byte stream into lines of bounded length. `\r` ends what was written before it, as on a terminal: only
/// what comes last on a line that is redrawn is kept.
#[derive(Debug, Default)]
pub(crate) struct Splitter {
    line: Vec<u8>,
    redraw: bool,
}

impl Splitter {
    /// Calls `emit` for each line that `bytes` completes.
    pub(crate) fn feed(&mut self, bytes: &[u8], mut emit: impl FnMut(&[u8])) {
        for &b in bytes {
            match b {
                b'\n' => {
                    emit(&self.line);
                    self.line.clear();
                    self.redraw = false;
                }
                b'\r' => self.redraw = true,
                _ => {
                    if std::mem::take(&mut self.redraw) {
                        self.line.clear();
                    }
                    if self.line.len() < LINE_MAX {
                        self.line.push(b);
                    }
                }
            }
        }
    }

    /// Calls `emit` for an unfinished last line.
    pub(crate) fn finish(&mut self, mut emit: impl FnMut(&[u8])) {
        if !self.line.is_empty() {
            emit(&self.line);
            self.line.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(parts: &[&str]) -> Vec<String> {
        let mut s = Splitter::default();
        let mut out = Vec::new();
        for p in parts {
            s.feed(p.as_bytes(), |l| out.push(String::from_utf8_lossy(l).into_owned()));
        }
        s.finish(|l| out.push(String::from_utf8_lossy(l).into_owned()));
        out
    }

    #[test]
    fn lines_are_cut_wherever_the_pieces_end() {
        assert_eq!(split(&["a\nb", "c\n", "\nd"]), ["a", "bc", "", "d"]);
        assert_eq!(split(&["dos\r\nnext\r", "\n"]), ["dos", "next"]);
    }

    #[test]
    fn a_progress_bar_is_its_last_state() {
        assert_eq!(split(&["10%\r20%", "\r", "30%\n"]), ["30%"]);
    }

    #[test]
    fn a_line_without_end_is_bounded() {
        let out = split(&[&"x".repeat(90_000), "\nshort\n"]);
        assert_eq!(out[0].len(), LINE_MAX);
        assert_eq!(out[1], "short");
    }
}
