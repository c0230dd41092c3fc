#!lua flags=no-writes
-- Shows dead letters.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5]    '1' with the text
-- ARGV[6..]  for each: message id, index
-- Result: for each, in order, false or
--   {channel, label (false without a destination), subscriber, cause, attempts, may have been sent,
--    accepted at, died at, history, payload (false if it is gone or was not asked for)}

local answers = {}
for at = 6, #ARGV, 2 do
  local id, index = ARGV[at], tonumber(ARGV[at + 1])
  local piece, cause, died_at = read_letter(id, index)
  if piece then
    local fields = redis.call('HMGET', record_of(id), 'r' .. index, 'sub', 'acc', 'h' .. index, 'ct')
    local lane, _, label = read_route(fields[1])
    answers[#answers + 1] = {
      lane or piece.lane, index > 0 and (label or '') or false, fields[2] or '', cause, piece.attempts,
      tonumber(piece.maybe), natural(fields[3]) or died_at, died_at, fields[4] or '',
      ARGV[5] == '1' and fields[5] or false,
    }
  else
    answers[#answers + 1] = false
  end
end
return answers
