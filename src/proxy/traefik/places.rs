//! Places of visitors, 0 to 9,999, in words that Traefik's rules understand: its only comparison is a regular expression.

use crate::fleet::names::Bp;

/// From one thrown place to the next. Traefik throws by going through a list, so that a list of all ten thousand would be
/// a configuration of a megabyte.
const STEP: u16 = 100;

/// The places that newcomers are thrown, with how many each stands for: every hundredth, and where `edge` parts them, so
/// that exactly the share of newcomers is on either side.
pub(super) fn thrown(edge: u16) -> Vec<(u16, u16)> {
    let all = Bp::FULL.get();
    let mut starts: Vec<u16> = (0..all).step_by(usize::from(STEP)).collect();
    if edge < all && !starts.contains(&edge) {
        starts.push(edge);
        starts.sort_unstable();
    }
    let ends = starts.iter().copied().skip(1).chain([all]);
    starts.iter().copied().zip(ends).map(|(from, to)| (from, to - from)).collect()
}

/// An expression for the numbers `from` to `to` (not included), as decimal digits without leading zeros.
pub(super) fn range(from: u16, to: u16) -> String {
    let last = to.saturating_sub(1);
    let mut out = Vec::new();
    let (mut low, mut high) = (0_u16, 9_u16);
    while low <= last {
        if high >= from {
            let digits = |n: u16| n.to_string().into_bytes();
            out.push(same_length(&digits(from.max(low)), &digits(last.min(high))));
        }
        (low, high) = (high + 1, (high + 1).saturating_mul(10).saturating_sub(1));
        if low >= Bp::FULL.get() {
            break;
        }
    }
    out.join("|")
}

/// An expression for the numbers from `low` to `high`, which have as many digits.
fn same_length(low: &[u8], high: &[u8]) -> String {
    let (Some((l, low)), Some((h, high))) = (low.split_first(), high.split_first()) else {
        return String::new();
    };
    let rest = low.len();
    let (l, h) = (char::from(*l), char::from(*h));
    if l == h {
        return format!("{l}{}", same_length(low, high));
    }
    let any = match rest {
        0 => String::new(),
        1 => "[0-9]".to_owned(),
        n => format!("[0-9]{{{n}}}"),
    };
    // The first and the last leading digit may have only some of what follows.
    let (mut first, mut last) = (l, h);
    let mut out = Vec::new();
    if low.iter().any(|d| *d != b'0') {
        out.push(format!("{l}{}", same_length(low, &vec![b'9'; rest])));
        first = next(first);
    }
    let partial = high.iter().any(|d| *d != b'9');
    if partial {
        last = char::from((last as u8).saturating_sub(1));
    }
    if first <= last {
        out.push(if first == last { format!("{first}{any}") } else { format!("[{first}-{last}]{any}") });
    }
    if partial {
        out.push(format!("{h}{}", same_length(&vec![b'0'; rest], high)));
    }
    format!("({})", out.join("|"))
}

fn next(digit: char) -> char {
    char::from((digit as u8).saturating_add(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_takes_its_numbers_and_no_others() {
        for (from, to) in [
            (0, 1),
            (0, 10_000),
            (0, 100),
            (0, 4999),
            (1, 10),
            (7, 8),
            (50, 1234),
            (999, 1001),
            (1000, 10_000),
            (9999, 10_000),
            (305, 4071),
            (10, 100),
            (99, 100),
            (5000, 10_000),
        ] {
            let expression = regex::Regex::new(&format!("^({})$", range(from, to))).unwrap();
            for n in 0..=12_000_u32 {
                let inside = (u32::from(from)..u32::from(to)).contains(&n);
                assert_eq!(
                    expression.is_match(&n.to_string()),
                    inside,
                    "{n} in {from} to {to}: {expression}"
                );
            }
            for other in ["", "00", "01", "-1", "1.", "x"] {
                assert!(!expression.is_match(other), "{other} in {from} to {to}");
            }
        }
    }

    #[test]
    fn places_are_thrown_in_proportion_whatever_the_share() {
        for edge in [0, 1, 50, 100, 250, 9999, 10_000] {
            let all = thrown(edge);
            assert_eq!(all.iter().map(|(_, width)| u32::from(*width)).sum::<u32>(), 10_000);
            let below = all.iter().filter(|(place, _)| *place < edge).map(|(_, width)| *width).sum::<u16>();
            assert_eq!(below, edge, "{all:?}");
        }
    }
}
