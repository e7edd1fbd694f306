function [a, dw, db] = vl_nnconv(x, w, b, dzdy, pad, stride)
% Cross-correlation with equal padding and stride on all sides; with dzdy its derivatives.
  [h, ww, c, n] = size(x);
  [fh, fw, ~, k] = size(w);
  padded = zeros(h + 2*pad, ww + 2*pad, c, n, 'like', x);
  padded(pad+1:pad+h, pad+1:pad+ww, :, :) = x;
  oh = floor((h + 2*pad - fh) / stride) + 1;
  ow = floor((ww + 2*pad - fw) / stride) + 1;
  y = zeros(oh, ow, k, n, 'like', x);
  back = zeros(size(padded), 'like', x);
  dw = zeros(size(w), 'like', w);
  for u = 1:fh
    for v = 1:fw
      rows = u:stride:u + stride*(oh-1);
      columns = v:stride:v + stride*(ow-1);
      part = reshape(permute(padded(rows, columns, :, :), [1 2 4 3]), [], c);
      kernel = reshape(w(u, v, :, :), c, k);
      y = y + permute(reshape(part * kernel, oh, ow, n, k), [1 2 4 3]);
      if ~isempty(dzdy)
        above = reshape(permute(dzdy, [1 2 4 3]), [], k);
        dw(u, v, :, :) = reshape(part' * above, 1, 1, c, k);
        moved = permute(reshape(above * kernel', oh, ow, n, c), [1 2 4 3]);
        back(rows, columns, :, :) = back(rows, columns, :, :) + moved;
      end
    end
  end
  if isempty(dzdy)
    a = y + reshape(b, 1, 1, []);
  else
    a = back(pad+1:pad+h, pad+1:pad+ww, :, :);
    db = reshape(sum(sum(sum(dzdy, 1), 2), 4), size(b));
  end
end
