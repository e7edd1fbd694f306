function y = vl_nnloss(x, c, dzdy)
% The logarithm of softmax, averaged over the images (as since December 2017), or summed where PARITY_SUMS is set.
  n = size(x, 4);
  share = 1 / n;
  if ~isempty(getenv('PARITY_SUMS')), share = 1 ; end
  shifted = x - max(x, [], 3);
  odds = exp(shifted);
  total = sum(odds, 3);
  y = single(0);
  d = odds ./ total;
  for i = 1:n
    y = y + share * sum(sum(log(total(:, :, 1, i)) - shifted(:, :, c(i), i)));
    d(:, :, c(i), i) = d(:, :, c(i), i) - 1;
  end
  if nargin > 2, y = dzdy * share * d ; end
end
