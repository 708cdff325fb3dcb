// One append kernel; tests set DIMS, TYPE and nothing else.
func.func @append(%item: !moa_tile.item<append>) attributes {
    moa_tile.config = #moa_tile.config<lanes = dims, rows = 64, keys = 64>} {
  moa_tile.copy_rows %item dims DIMS of TYPE : !moa_tile.item<append>
  return
}
