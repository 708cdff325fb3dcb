// One rope kernel; tests set DIMS, TYPE and ROPE.
func.func @rope(%item: !moa_tile.item<rope>) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
  moa_tile.rotate_rows %item dims DIMS of TYPE rope(ROPE) : !moa_tile.item<rope>
  return
}
