//! Sizes as Kubernetes writes them.

/// The bytes of a quantity such as `1.5Gi`, rounded up; `None` for what is none.
pub(super) fn bytes(text: &str) -> Option<i64> {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let unit: u128 = match suffix {
        "" => 1,
        "k" => 1000,
        "M" => 1000_u128.pow(2),
        "G" => 1000_u128.pow(3),
        "T" => 1000_u128.pow(4),
        "Ki" => 1024,
        "Mi" => 1024_u128.pow(2),
        "Gi" => 1024_u128.pow(3),
        "Ti" => 1024_u128.pow(4),
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits: u128 = format!("{whole}{fraction}").parse().ok()?;
    let divisor = 10_u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
    i64::try_from(digits.checked_mul(unit)?.div_ceil(divisor)).ok()
}

/// The shortest binary text for so many bytes: `1Gi`, `1000`.
pub(super) fn text(bytes: i64) -> String {
    let (mut number, mut unit) = (bytes, 0);
    let units = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    while number != 0 && number % 1024 == 0 && unit + 1 < units.len() {
        number /= 1024;
        unit += 1;
    }
    format!("{number}{}", units.get(unit).unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written_as_the_real_controllers_do() {
        for (given, size, written) in [
            ("1Gi", 1 << 30, "1Gi"),
            ("50Mi", 52_428_800, "50Mi"),
            ("52428800", 52_428_800, "50Mi"),
            ("1.5Gi", 1_610_612_736, "1536Mi"),
            ("1k", 1000, "1000"),
            ("0", 0, "0"),
        ] {
            assert_eq!((bytes(given), text(size).as_str()), (Some(size), written), "{given}");
        }
        assert_eq!((bytes("lots"), bytes(""), bytes("1.2.3")), (None, None, None));
    }
}
