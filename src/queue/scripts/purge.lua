#!lua flags=allow-oom
-- Forgets dead letters.
--
-- KEYS[1], ARGV[1..4]  see ground.lua
-- ARGV[5..]  for each: message id, index
-- Result: how many there were

local purged = 0
for at = 5, #ARGV, 2 do
  local id, index = ARGV[at], tonumber(ARGV[at + 1])
  local piece, cause = read_letter(id, index)
  if piece and drop_letter(cause, id, index) then purged = purged + 1 end
end
return purged
