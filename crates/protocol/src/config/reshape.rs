/// A concrete shape said in other dimensions: `dims` to `reshape.shape` for an input, the other way round for an output.
/// What comes before `from` (the batch dimension) is kept; the sizes at -1 are carried over in order. None when the
/// shape does not fit `from`.
pub fn reshaped(shape: &[usize], from: &[i64], to: &[i64]) -> Option<Vec<usize>> {
    let batch = shape.len().checked_sub(from.len())?;
    let (batch, item) = shape.split_at(batch);
    let mut variable = Vec::new();
    for (size, dim) in item.iter().zip(from) {
        match usize::try_from(*dim) {
            Ok(fixed) if fixed == *size => {}
            Ok(_) => return None,
            Err(_) => variable.push(*size),
        }
    }
    let mut variable = variable.into_iter();
    let mut result = batch.to_vec();
    for dim in to {
        result.push(match usize::try_from(*dim) {
            Ok(fixed) => fixed,
            Err(_) => variable.next()?,
        });
    }
    variable.next().is_none().then_some(result)
}
