//! Prometheus' text format, version 0.0.4: families with their help and type, samples with escaped labels.

use std::fmt::Write as _;

/// What `Content-Type` says of it.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What a family's numbers do.
#[derive(Clone, Copy)]
pub enum Kind {
    /// Only ever grows, and begins anew with the controller.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts in buckets, each with all that is below.
    Histogram,
}

/// Labels of a sample, beside that of the fleet.
pub type Labels<'a> = &'a [(&'a str, &'a str)];

/// A page that is being written. Every sample carries the fleet.
pub struct Page {
    out: String,
    fleet: String,
}

/// One family of a [`Page`]. Its header is written with the first sample: one without samples is left out.
pub struct Family<'a> {
    page: &'a mut Page,
    name: &'a str,
    header: Option<(Kind, &'a str)>,
}

impl Page {
    /// An empty page.
    #[must_use]
    pub fn new(fleet: &str) -> Self {
        Self { out: String::new(), fleet: escaped(fleet) }
    }

    /// Begins a family; each may be there once.
    pub fn family<'a>(&'a mut self, name: &'a str, kind: Kind, help: &'a str) -> Family<'a> {
        Family { page: self, name, header: Some((kind, help)) }
    }

    /// All of it.
    #[must_use]
    pub fn finish(self) -> String {
        self.out
    }
}

impl Family<'_> {
    /// One number.
    pub fn sample(&mut self, labels: Labels<'_>, value: f64) {
        self.write("", labels, None, value);
    }

    /// A histogram: buckets with their upper bound in seconds and all that is at or below it, and the sum in seconds.
    pub fn histogram(&mut self, labels: Labels<'_>, buckets: &[(f64, u64)], sum: f64, count: u64) {
        for (bound, below) in buckets {
            self.write("_bucket", labels, Some(&bound.to_string()), *below as f64);
        }
        self.write("_bucket", labels, Some("+Inf"), count as f64);
        self.write("_sum", labels, None, sum);
        self.write("_count", labels, None, count as f64);
    }

    fn write(&mut self, suffix: &str, labels: Labels<'_>, le: Option<&str>, value: f64) {
        let (out, name) = (&mut self.page.out, self.name);
        if let Some((kind, help)) = self.header.take() {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let help = help.replace('\\', "\\\\").replace('\n', "\\n");
            let _ = write!(out, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        }
        let _ = write!(out, "{name}{suffix}{{fleet=\"{}\"", self.page.fleet);
        for (label, value) in labels {
            let _ = write!(out, ",{label}=\"{}\"", escaped(value));
        }
        if let Some(le) = le {
            let _ = write!(out, ",le=\"{le}\"");
        }
        // The shortest decimal that is read back as the same number, without an exponent.
        let _ = writeln!(out, "}} {value}");
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_would_end_a_label_or_a_line_is_escaped() {
        let mut page = Page::new("sh\"op");
        page.family("a_total", Kind::Counter, "One\\two\nthree.").sample(&[("v", "\\\"\n")], 3.0);
        page.family("never", Kind::Gauge, "Has no samples.");
        let mut g = page.family("b_ratio", Kind::Gauge, "A part.");
        g.sample(&[], 0.05);
        g.sample(&[("x", "y")], 12_345_678_901.0);
        let want = "# HELP a_total One\\\\two\\nthree.\n# TYPE a_total counter\n\
                    a_total{fleet=\"sh\\\"op\",v=\"\\\\\\\"\\n\"} 3\n\
                    # HELP b_ratio A part.\n# TYPE b_ratio gauge\n\
                    b_ratio{fleet=\"sh\\\"op\"} 0.05\nb_ratio{fleet=\"sh\\\"op\",x=\"y\"} 12345678901\n";
        assert_eq!(page.finish(), want);
    }
}
