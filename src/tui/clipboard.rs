//! Copying to the clipboard of whoever sits at the other end: OSC 52, which goes through SSH, and through a multiplexer
//! where that lets it. Nobody answers, so nobody knows whether the terminal took it.

/// What stands between this program and the terminal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Between {
    /// Nothing that would keep it.
    #[default]
    Nothing,
    /// tmux: takes it itself (`set-clipboard on`), or passes it on when it is wrapped (`allow-passthrough on`).
    Tmux,
    /// GNU screen: passes it on when it is wrapped.
    Screen,
}

impl Between {
    /// By the variables that multiplexers set.
    #[must_use]
    pub fn of(env: impl Fn(&str) -> Option<String>) -> Self {
        match (env("TMUX"), env("STY")) {
            (Some(_), _) => Self::Tmux,
            (None, Some(_)) => Self::Screen,
            (None, None) => Self::Nothing,
        }
    }

    /// The bytes that put `text` into the clipboard.
    #[must_use]
    pub fn sequence(self, text: &str) -> String {
        let plain = format!("\x1b]52;c;{}\x07", base64(text.as_bytes()));
        match self {
            Self::Nothing => plain,
            // Both ways: either may be switched off.
            Self::Tmux => format!("{plain}\x1bPtmux;\x1b{plain}\x1b\\"),
            Self::Screen => format!("\x1bP{plain}\x1b\\"),
        }
    }
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    const SIGNS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |n: usize| u32::from(chunk.get(n).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for n in 0..4 {
            let sign = SIGNS.get((bits >> (18 - 6 * n) & 63) as usize).copied().unwrap_or(b'=');
            out.push(if n > chunk.len() { '=' } else { char::from(sign) });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_the_vectors_of_rfc_4648() {
        for (text, coded) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ] {
            assert_eq!(base64(text.as_bytes()), coded);
        }
        assert_eq!(base64("서비스".as_bytes()), "7ISc67mE7Iqk");
    }

    #[test]
    fn multiplexers_get_it_wrapped() {
        let env = |set: &'static str| move |name: &str| (name == set).then(|| "x".to_owned());
        assert_eq!(Between::of(env("none")).sequence("foo"), "\x1b]52;c;Zm9v\x07");
        let tmux = Between::of(env("TMUX")).sequence("foo");
        assert_eq!(tmux, "\x1b]52;c;Zm9v\x07\x1bPtmux;\x1b\x1b]52;c;Zm9v\x07\x1b\\");
        assert_eq!(Between::of(env("STY")).sequence("foo"), "\x1bP\x1b]52;c;Zm9v\x07\x1b\\");
    }
}
