//! Kubernetes quantities (`1Gi`, `500M`, `1.5e9`) as bytes.

/// A text that is not a quantity, or one that is negative or does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a size: expected a quantity such as 10Gi, not negative, below 8 EiB")]
pub struct NotAQuantity(pub String);

/// The bytes of a quantity, rounded up as Kubernetes does.
pub fn bytes(text: &str) -> Result<i64, NotAQuantity> {
    parse(text).ok_or_else(|| NotAQuantity(text.to_owned()))
}

fn parse(text: &str) -> Option<i64> {
    let text = text.strip_prefix('+').unwrap_or(text);
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (multiplier, divisor) = scale(suffix)?;
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.contains('.') {
        return None;
    }
    // More digits than nano precision cannot matter to whole bytes beyond rounding up, and would overflow.
    if fraction.len() > 18 {
        return None;
    }
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = divisor.checked_mul(10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?)?;
    i64::try_from(digits.checked_mul(multiplier)?.div_ceil(divisor)).ok()
}

/// A suffix as a fraction.
fn scale(suffix: &str) -> Option<(u128, u128)> {
    let binary = |power: u32| Some((1u128 << (10 * power), 1));
    let decimal = |power: u32| Some((10u128.pow(power), 1));
    match suffix {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => {
            let exponent: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
            let power = 10u128.checked_pow(exponent.unsigned_abs())?;
            Some(if exponent < 0 { (1, power) } else { (power, 1) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_read_as_kubernetes_reads_them() {
        for (text, expected) in [
            ("0", 0),
            ("128", 128),
            ("1Ki", 1024),
            ("50Mi", 52_428_800),
            ("1Gi", 1_073_741_824),
            ("1.5Gi", 1_610_612_736),
            (".5Gi", 536_870_912),
            ("1G", 1_000_000_000),
            ("1E", 1_000_000_000_000_000_000),
            ("1e3", 1000),
            ("1E3", 1000),
            ("12e-1", 2),
            ("1500m", 2),
            ("1n", 1),
            ("+1k", 1000),
            ("7Ei", 8_070_450_532_247_928_832),
        ] {
            assert_eq!(bytes(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in ["", "Gi", "-1Gi", "1gi", "1 Gi", "1.2.3", ".", "8Ei", "1e99", "ten", "1Gi1", "1e", "1i"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }
}
