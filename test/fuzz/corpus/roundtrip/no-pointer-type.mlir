func.func@e(%e:!moa_gpu.shared<64x64xf32>,%w:i3)//
moa_gpu.copy_words%e,%u:
