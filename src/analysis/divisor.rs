//! Requests that fail together: by how much they count less.

use super::block::Count;

/// Stable's requests over half a minute, split in two by a hash of the client: all requests of a client are in the same half.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Split {
    /// One half.
    pub one: Count,
    /// The other.
    pub other: Count,
}

/// By what counts have to be divided, at least 1, because requests of one client (a session, its retries) fail together:
/// how much more the rates of two halves of the same traffic differ than those of independent requests would,
/// `Σ(p̂₁−p̂₂)² / Σ p̂(1−p̂)(1/n₁+1/n₂)` over batches of half a minute.
///
/// It is as good as there are batches: out of an hour's 120 it is right within an eighth, as a rule, out of ten minutes'
/// within a third, and too little of it lets false aborts through.
///
/// `None` when it cannot be told: no batch had both halves and both good and bad requests. Then count one outcome for
/// each client's session instead.
#[must_use]
pub fn divisor(batches: &[Split]) -> Option<f64> {
    let (mut seen, mut expected) = (0.0, 0.0);
    for Split { one, other } in batches {
        if one.n == 0 || other.n == 0 {
            continue;
        }
        let (n1, n2) = (one.n as f64, other.n as f64);
        let (k1, k2) = (one.failed() as f64, other.failed() as f64);
        let pooled = (k1 + k2) / (n1 + n2);
        seen += (k1 / n1 - k2 / n2).powi(2);
        expected += pooled * (1.0 - pooled) * (1.0 / n1 + 1.0 / n2);
    }
    (expected > 0.0).then(|| (seen / expected).max(1.0))
}
