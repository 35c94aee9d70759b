//! Text in columns for people: lined up whatever the characters, and never wider than a terminal of 80.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

/// Columns of the narrowest terminal that tables are made for.
pub(super) const WIDTH: usize = 80;

/// Columns that `text` takes.
pub(super) fn columns(text: &str) -> usize {
    text.width()
}

/// `text`, or as much of it as fits into `room` columns with two dots after it.
pub(super) fn cut(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    let mut out = String::new();
    let mut taken = 0;
    for part in text.graphemes(true) {
        let more = columns(part);
        if taken + more + 2 > room {
            break;
        }
        taken += more;
        out.push_str(part);
    }
    out.push_str(if room >= 2 { ".." } else { "" });
    out
}

/// `text` filled up with spaces to `room` columns.
pub(super) fn pad(text: &str, room: usize) -> String {
    format!("{text}{}", " ".repeat(room.saturating_sub(columns(text))))
}

/// Rows as lines: each column as wide as its widest cell, two spaces between, the last one cut at [`WIDTH`].
pub(super) fn table(indent: usize, rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..count)
        .map(|c| rows.iter().filter_map(|r| r.get(c)).map(|cell| columns(cell)).max().unwrap_or(0))
        .collect();
    let mut out = String::new();
    for row in rows {
        let mut line = " ".repeat(indent);
        for (n, (cell, width)) in row.iter().zip(&widths).enumerate() {
            if n + 1 == count {
                line.push_str(&cut(cell, WIDTH.saturating_sub(columns(&line))));
            } else {
                line.push_str(&pad(cell, width + 2));
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `text` after a label, on as many lines as it needs, those after the first under its beginning.
pub(super) fn labelled(label: &str, text: &str) -> String {
    let room = WIDTH.saturating_sub(columns(label)).max(20);
    let under = " ".repeat(columns(label));
    let mut out = String::new();
    let mut line = String::new();
    for word in text.split(' ').filter(|w| !w.is_empty()) {
        if !line.is_empty() && columns(&line) + 1 + columns(word) > room {
            out.push_str(if out.is_empty() { label } else { &under });
            out.push_str(&line);
            out.push('\n');
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    out.push_str(if out.is_empty() { label } else { &under });
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_line_up() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        let text = table(1, &[row("김철수", "한"), row("ab", "x"), row("é", "y")]);
        let at: Vec<usize> = text.lines().map(|l| columns(l.rsplit_once(' ').unwrap().0)).collect();
        assert_eq!(at, [8, 8, 8], "{text}");
    }

    #[test]
    fn what_is_too_long_is_cut_between_characters() {
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcd..");
        assert_eq!(cut("가나다라", 7), "가나..");
        assert_eq!(cut("ab", 1), "");
        let long = vec![vec!["a".to_owned(), "나".repeat(200)]];
        assert!(table(2, &long).lines().all(|l| columns(l) <= WIDTH));
    }

    #[test]
    fn labelled_text_is_wrapped_under_itself() {
        let text = labelled("  takes  ", &"word ".repeat(30));
        assert!(text.lines().count() > 1 && text.lines().all(|l| columns(l) <= WIDTH), "{text}");
        assert!(text.lines().skip(1).all(|l| l.starts_with("         word")), "{text}");
        assert_eq!(labelled("x ", ""), "x \n");
    }
}
